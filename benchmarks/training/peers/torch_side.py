"""What all sides written in PyTorch share: Adam outside, and a function that gives the meta-gradient inside."""

from abc import abstractmethod
from typing import Any, NamedTuple

import torch
from network import Conv4, load_weights, module_name
from numpy.typing import NDArray
from side import Side
from torch import Tensor
from workload import OUTER_RATE, Batch, Weights, Workload


class Task(NamedTuple):
    """One task; `images` are the support set and the queries behind it."""

    support: Tensor
    support_labels: Tensor
    images: Tensor
    query_labels: Tensor


def task_of(*arrays: NDArray[Any], device: torch.device | str = "cpu") -> Task:
    """One task of a batch, whose arrays are these."""
    support, support_labels, query, query_labels = (torch.from_numpy(array).to(device) for array in arrays)
    return Task(support, support_labels, torch.cat((support, query)), query_labels)


class TorchSide(Side):
    """Takes outer steps by torch.optim.Adam."""

    channels_last = False
    native_norm = True

    def __init__(self, workload: Workload, threads: int, processes: int) -> None:
        assert processes == 1
        torch.set_num_threads(threads)
        self.workload = workload
        self.device = torch.device(workload.device)

    def restart(self, weights: Weights) -> None:
        """See Side.restart."""
        self.network = Conv4(self.workload, self.channels_last, self.native_norm)
        load_weights(self.network, weights)
        self.network.to(self.device)
        self.names = list(weights)
        self.adam = torch.optim.Adam(self.network.parameters(), lr=OUTER_RATE)
        self.prepare()

    def prepare(self) -> None:
        """Make what belongs to a network."""

    @abstractmethod
    def backward(self, batch: Batch) -> float:
        """Add the meta-gradient to that of the network's parameters; returns the mean loss of the queries."""

    def step(self, batch: Batch) -> float:
        """See Side.step."""
        self.adam.zero_grad()
        loss = self._backward(batch, exactly=False)
        self.adam.step()
        return loss

    def gradient(self, batch: Batch) -> tuple[float, Weights]:
        """See Side.gradient."""
        self.adam.zero_grad()
        loss = self._backward(batch, exactly=True)
        return loss, {name: self._parameter(name).grad.cpu().numpy() for name in self.names}  # type: ignore[union-attr]

    def weights(self) -> Weights:
        """See Side.weights."""
        return {name: self._parameter(name).detach().cpu().numpy() for name in self.names}

    def device_bytes(self) -> int:
        """See Side.device_bytes."""
        return torch.cuda.max_memory_reserved() if self.device.type == "cuda" else 0

    def _backward(self, batch: Batch, *, exactly: bool) -> float:
        """See `backward`; a GPU may round factors to TF32 unless it shall compute exactly."""
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = not exactly
        return self.backward(batch)

    def _parameter(self, name: str) -> torch.nn.Parameter:
        return self.network.get_parameter(module_name(name))


class OneByOne(TorchSide):
    """Takes tasks one after the other, and backpropagates through each before the next, which takes least memory."""

    def backward(self, batch: Batch) -> float:
        """See TorchSide.backward."""
        total = 0.0
        for arrays in zip(*batch, strict=True):
            loss = self.query_loss(task_of(*arrays, device=self.device))
            (loss / len(batch.support)).backward()
            total += loss.item() / len(batch.support)
        return total

    @abstractmethod
    def query_loss(self, task: Task) -> Tensor:
        """The loss of a task's queries after adapting, through which gradients flow to the network's parameters."""

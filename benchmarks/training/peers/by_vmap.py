"""Peer: torch.func, all tasks of an outer step at once by vmap."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import torch
import torch.nn.functional as F
from side import serve
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch_side import TorchSide
from workload import RATE, Batch


class Vmap(TorchSide):
    """grad inside of vmap, and autograd around it."""

    native_norm = False

    def backward(self, batch: Batch) -> float:
        """See TorchSide.backward."""

        def loss_of(weights: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
            return F.cross_entropy(functional_call(self.network, weights, (images,)), labels)

        def task_loss(support: Tensor, support_labels: Tensor, query: Tensor, query_labels: Tensor) -> Tensor:
            weights = dict(self.network.named_parameters())
            for _ in range(self.workload.steps):
                gradients = grad(loss_of)(weights, support, support_labels)
                weights = {name: weight - RATE * gradients[name] for name, weight in weights.items()}
            return loss_of(weights, torch.cat((support, query)), query_labels)

        loss = vmap(task_loss)(*(torch.from_numpy(array).to(self.device) for array in batch)).mean()
        loss.backward()
        return loss.item()


if __name__ == "__main__":
    serve(Vmap)

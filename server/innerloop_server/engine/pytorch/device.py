"""The interface of PyTorch's devices: how programs run, how batches are padded, and how many run side by side.

A device runs a program on inputs that lie in host memory and returns outputs that lie there again. Everything above
speaks of programs only.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

from innerloop_learner.learner import Learner
from innerloop_server.engine.pytorch.programs import Program
from innerloop_server.engine.pytorch.worker import TorchWorker

Function = Callable[..., tuple[Tensor, ...]]


class Device(ABC):
    """Somewhere to compute.

    Attributes:
        torch_device: PyTorch's name for it.
        lanes: batches that run side by side without taking time from each other.
        threads: threads that feed it.
        largest_batch: tasks beyond which larger batches gain nothing.
        usual_batch: tasks up to which programs are prepared for every size.
        captures: whether it gains from programs that were captured beforehand.
        on_launch: is called in the order of the device's work each time that it has been given a program, to use the
            time that this takes; never by a CPU.
    """

    torch_device: torch.device
    lanes: int
    threads: int
    largest_batch: int
    usual_batch: int
    captures: bool
    on_launch: Callable[[], None]

    def __init__(self) -> None:
        self.on_launch = lambda: None
        self._timing = threading.Lock()

    @abstractmethod
    def padded(self, size: int) -> int:
        """The number of tasks or examples that a batch of this many is padded to."""

    @abstractmethod
    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Host memory for inputs, from which they travel to the device without another copy on the host."""

    @abstractmethod
    def in_order(self) -> AbstractContextManager[None]:
        """Inside, what this thread asks of PyTorch is done in the order of the device's work."""

    @abstractmethod
    def in_background(self) -> AbstractContextManager[None]:
        """Inside, what this thread asks of PyTorch goes on beside the device's work, and holds up none of it."""

    @abstractmethod
    def run(self, program: Program, postprocess: Function | None = None, *, alone: bool = True) -> tuple[Tensor, ...]:
        """Outputs of a program, or of `postprocess` called with them, in the host's memory.

        Args:
            program: its inputs lie in memory made by `empty`.
            postprocess: what is done with the outputs on the device; it is never captured.
            alone: whether nothing else computes meanwhile, so that a CPU may use several cores.
        """

    @abstractmethod
    def fetch(self, read: Callable[[], Tensor]) -> Tensor:
        """The tensor that `read` makes in the order of the device's work, in the host's memory."""

    @abstractmethod
    def capture(self, program: Program, learner: Learner) -> None:
        """Prepare for programs of this key, where the device gains from it.

        Raises:
            RuntimeError: it can't be captured.
        """

    def start_worker(self) -> TorchWorker | None:
        """See Engine.start_worker."""
        return None

    def use_threads(self, threads: int) -> None:  # noqa: B027 - only a CPU has any
        """Set the number of CPU threads that PyTorch uses for the work of this thread."""

    @contextmanager
    def exclusive_timing(self) -> Iterator[None]:
        """Inside, no other thread is timing something, which would take time from what this one times."""
        with self._timing:
            yield

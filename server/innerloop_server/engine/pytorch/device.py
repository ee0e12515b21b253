"""What a device is: how programs run on one, what batches are padded to there, and how many run side by side.

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
from innerloop_server.engine.pytorch.computation import Computation
from innerloop_server.engine.pytorch.programs import Program
from innerloop_server.engine.waiting import Waiting

Function = Callable[..., tuple[Tensor, ...]]
Remote = Callable[[Program, Function | None], Waiting[tuple[Tensor, ...]]]
"""Does what `Device.run` does in another process, and waits for that only; raises RemoteError where it can't."""


class Device(ABC):
    """Somewhere to compute.

    Attributes:
        torch_device: PyTorch's name for it.
        lanes: batches that run side by side without taking time from each other.
        threads: threads that feed it.
        largest_batch: tasks beyond which larger batches gain nothing.
        usual_batch: tasks up to which programs are prepared for every size.
        captures: whether it gains from programs that were captured beforehand.
        meanwhile: is called in the order of the device's work, when it has been given a program that takes a while;
            never by a CPU.
    """

    torch_device: torch.device
    lanes: int
    threads: int
    largest_batch: int
    usual_batch: int
    captures: bool
    meanwhile: Callable[[], None]

    def __init__(self) -> None:
        self.meanwhile = lambda: None
        self._timing = threading.Lock()

    @abstractmethod
    def padded(self, size: int) -> int:
        """What a batch of that many tasks or examples is padded to."""

    @abstractmethod
    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Host memory for inputs, from which they travel to the device without another copy on the host."""

    @abstractmethod
    def working(self) -> AbstractContextManager[None]:
        """Inside, what this thread asks of PyTorch happens in the order of the device's work."""

    @abstractmethod
    def beside(self) -> AbstractContextManager[None]:
        """Inside, what this thread asks of PyTorch happens beside the device's work, and holds up none of it."""

    @abstractmethod
    def run(self, program: Program, then: Function | None = None) -> tuple[Tensor, ...]:
        """Outputs of a program, or of `then` called with them, in host memory.

        Args:
            program: its inputs lie in memory made by `empty`.
            then: what is to be done with the outputs on the device, never captured.
        """

    @abstractmethod
    def capture(self, program: Program, learner: Learner) -> None:
        """Prepare for programs of this key, where the device gains from it.

        Raises:
            RuntimeError: it can't be captured.
        """

    def enter_lane(self, lane: int) -> None:  # noqa: B027 - most devices feel no difference
        """Called by each thread that feeds the device, before anything else."""

    def remote(self, lane: int, computation: Computation) -> Remote | None:
        """How the process behind a lane runs programs of a computation, where it shall do so now."""
        del lane, computation
        return None

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Inside, what this thread computes can be timed: it is what the device would do if nothing else was asked."""
        with self._timing:
            yield

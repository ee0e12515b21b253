"""What the server asks of an engine: load a bundle, adapt, predict, say how much memory is in use.

Nothing here knows of PyTorch, so that another runtime or another process can stand behind it. Arrays are raw inputs as
clients sent them (uint8 or float32); the engine normalises them as the bundle says.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from innerloop_server.domain.answers import Answers
from innerloop_server.domain.models import ModelDescription, ServedModel
from innerloop_server.domain.tasks import Array, SupportSet
from innerloop_server.engine.waiting import Waiting

CPU_BATCH, GPU_BATCH = 8, 256
"""Tasks beyond which larger batches gain nothing."""


class LoadError(ValueError):
    """A bundle that the engine refuses; the message may be shown to clients."""


class RemoteError(RuntimeError):
    """Another process could not compute, and this one can."""


class MemoryFullError(RuntimeError):
    """There is no memory for task states left, not even by moving others away."""


class TaskState(ABC):
    """What adapting one task left behind, wherever the engine keeps it; freed when nothing refers to it any more.

    Attributes:
        size_bytes: memory it takes.
        signature: states of one model with equal signatures can be computed in one batch.
    """

    size_bytes: int
    signature: Hashable


@dataclass(frozen=True, slots=True)
class AdaptedTask:
    """A task state, and the mean support loss before each inner step (empty for methods without steps)."""

    state: TaskState
    losses: tuple[float, ...]


class LoadedModel(ABC):
    """A bundle on a device; loading it again makes another one.

    Functions that compute block, and run on the engine's threads only, several at a time.

    Attributes:
        name: that callers know it by.
        description: what the bundle says of itself.
    """

    name: str
    description: ModelDescription

    @property
    def served(self) -> ServedModel:
        """What callers may know of it."""
        return ServedModel(self.name, self.description)

    @abstractmethod
    def prepare(self) -> None:
        """Set everything up that the first requests would otherwise wait for."""

    @abstractmethod
    def compile(self) -> None:
        """Make it faster, at length: this may run on any thread, while the model serves."""

    @abstractmethod
    def adapt(self, tasks: Sequence[SupportSet], steps: int, width: int) -> list[AdaptedTask]:
        """Learn a batch of tasks; raises MemoryFullError where there is no room for their states.

        Args:
            tasks: support sets of any sizes, their inputs of one element type.
            steps: inner steps, the same for all.
            width: classes to make room for, at least the largest `ways` (zero for regression).
        """

    @abstractmethod
    def predict(self, states: Sequence[TaskState], queries: Sequence[Array]) -> list[Answers]:
        """Answer a batch of tasks; raises MemoryFullError where there is no room to bring their states back.

        Args:
            states: task states with equal signatures.
            queries: raw inputs [Q, *input] for each state, of any Q but one element type.
        """

    def expect(self, state: TaskState) -> None:  # noqa: B027 - most engines gain nothing from it
        """Told of a state that will be predicted with when it is its turn; may be called at any time, never waits."""

    def remote(self, lane: int, tasks: int, size_bytes: int) -> "AwaitedModel | None":
        """The model in the process behind a lane, where that shall compute now; None where the lane's thread shall.

        Args:
            lane: its number.
            tasks: of the batch.
            size_bytes: of the batch's inputs.
        """
        del lane, tasks, size_bytes
        return None


@dataclass(frozen=True, slots=True)
class AwaitedModel:
    """Functions of a loaded model as coroutines, which wait for nothing but another process that computes.

    They raise RemoteError where that could not, and the loaded model can.

    Attributes:
        adapt: see LoadedModel.adapt.
        predict: see LoadedModel.predict.
    """

    adapt: Callable[[Sequence[SupportSet], int, int], Waiting[list[AdaptedTask]]]
    predict: Callable[[Sequence[TaskState], Sequence[Array]], Waiting[list[Answers]]]


class Engine(ABC):
    """Runs bundles on one device.

    Attributes:
        lanes: batches that run side by side without taking time from each other.
        threads: threads that feed the device; those beyond its lanes make the next batch ready.
        largest_batch: tasks beyond which larger batches gain nothing.
        compiles: whether models shall be compiled once they serve.
    """

    lanes: int
    threads: int
    largest_batch: int
    compiles: bool

    @abstractmethod
    def enter_lane(self, lane: int) -> None:
        """Called on each thread that feeds the device, numbered from 0, before anything else is computed there."""

    @abstractmethod
    def load(self, name: str, path: Path) -> LoadedModel:
        """Load a bundle under a name; blocks, and may run on any thread.

        Raises:
            LoadError: the bundle is refused.
        """

    @abstractmethod
    def memory(self) -> Mapping[tuple[str, str], int]:
        """Bytes in use by (device, kind); kinds are allocated and reserved on an accelerator, resident on a CPU."""

"""What the server asks of an engine: load a bundle, adapt, predict, say how much memory is in use.

Nothing here knows of PyTorch, so that another runtime or another process can stand behind it. Arrays are raw inputs as
clients sent them (uint8 or float32); the engine normalises them as the bundle says.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from innerloop_server.engine.waiting import Waiting

Array = NDArray[Any]

CPU_BATCH, GPU_BATCH = 8, 256
"""Tasks beyond which larger batches gain nothing."""


class LoadError(ValueError):
    """A bundle that the engine refuses; the message may be shown to clients."""


class RemoteError(RuntimeError):
    """Another process could not compute, and this one can."""


class MemoryFullError(RuntimeError):
    """There is no memory for task states left, not even by moving others away."""


@dataclass(frozen=True)
class ModelMetric:
    """A figure measured when the model was evaluated; fields as in the wire contract."""

    name: str
    value: float
    confidence_interval: float
    protocol: str


@dataclass(frozen=True)
class ModelDescription:
    """What a loaded bundle says of itself.

    Attributes:
        version: short form of `digest`.
        digest: SHA-256 that identifies the bundle.
        method: registered name.
        task_kind: classification or regression.
        input_shape: of one example.
        input_dtype: element type of the data it was trained on.
        target_size: target values per example (zero for classification).
        trained_ways, trained_shots, trained_steps: the tasks it was trained for.
        max_ways, max_steps: the largest values a request may ask for.
        default_steps: taken when a request names none.
        ways_can_change: which other numbers of ways than `head_ways` it can serve.
        head_ways: width of a fixed head; the ways it was built for.
        order_matters: whether the order of support examples changes answers.
        gradients_at_serving: whether adapting computes gradients.
        metrics: evaluated figures.
        texts: whether examples are texts, packed as rows of bytes [N, L]; then `input_shape` is empty.
    """

    version: str
    digest: str
    method: str
    task_kind: Literal["classification", "regression"]
    input_shape: tuple[int, ...]
    input_dtype: Literal["uint8", "float32"]
    target_size: int
    trained_ways: int
    trained_shots: int
    trained_steps: int
    max_ways: int
    max_steps: int
    default_steps: int
    ways_can_change: Literal["no", "fewer", "any"]
    head_ways: int
    order_matters: bool
    gradients_at_serving: bool
    metrics: tuple[ModelMetric, ...] = ()
    texts: bool = False

    def head_width(self, ways: int) -> int:
        """Classes to make room for: those of a fixed head, else a power of two, so that states have few shapes."""
        if ways == 0:
            return 0
        if self.ways_can_change != "any":
            return self.head_ways
        return min(1 << (ways - 1).bit_length(), self.max_ways)


@dataclass(frozen=True, slots=True)
class SupportSet:
    """The labelled examples of one task.

    Attributes:
        x: raw inputs [S, *input], uint8 or float32.
        y: class indices [S] int64, or targets [S, D] float32.
        ways: number of classes; zero for regression.
    """

    x: Array
    y: Array
    ways: int

    @property
    def size(self) -> int:
        """Number of examples S."""
        return len(self.x)


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


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers to the Q queries of one task, float32.

    Attributes:
        logits: [Q, ways]; None for regression.
        probabilities: [Q, ways]; None for regression.
        values: [Q, D]; None for classification.
    """

    logits: NDArray[np.float32] | None = None
    probabilities: NDArray[np.float32] | None = None
    values: NDArray[np.float32] | None = None

    @property
    def finite(self) -> bool:
        """Whether the answers are numbers; they are not when the adaptation diverged."""
        numbers = (self.probabilities, self.values)
        return all(bool(np.isfinite(array).all()) for array in numbers if array is not None)


class LoadedModel(ABC):
    """A bundle on a device. Functions that compute block, and run on the engine's threads only, several at a time."""

    description: ModelDescription

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
    def load(self, path: Path) -> LoadedModel:
        """Load a bundle; blocks, and may run on any thread.

        Raises:
            LoadError: the bundle is refused.
        """

    @abstractmethod
    def memory(self) -> Mapping[tuple[str, str], int]:
        """Bytes in use by (device, kind); kinds are allocated and reserved on an accelerator, resident on a CPU."""

"""The interface of engines: they load bundles, adapt, predict, and report the memory in use.

Nothing here knows of PyTorch, so that another runtime or another process can stand behind it. Arrays are raw inputs as
clients sent them (uint8 or float32); the engine normalises them as the bundle says.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from innerloop_learner.calibration import Calibration
from innerloop_learner.signatures import TrustedKeys
from innerloop_server.domain.answers import Answers
from innerloop_server.domain.models import ModelDescription, ServedModel
from innerloop_server.domain.portable import GraphFile, NoGraph
from innerloop_server.domain.tasks import Array, Parts, SupportSet
from innerloop_server.domain.timings import Operation

CPU_BATCH, GPU_BATCH = 8, 256
"""Numbers of tasks above which larger batches raise throughput no further, on a CPU and on a GPU."""


class LoadError(ValueError):
    """A bundle that the engine refuses; the message may be shown to clients."""


class WorkerError(RuntimeError):
    """A worker process could not compute a batch; a thread of this process can."""


class MemoryFullError(RuntimeError):
    """There is no memory for task states left, not even by moving others away."""


class AbandonedError(RuntimeError):
    """A batch was not computed to its end, because nobody waits for it any more."""


class StateMismatchError(ValueError):
    """Bytes that are no task state of this model and backend."""


class TaskState(ABC):
    """The state of one adapted task, wherever the engine keeps it; it is freed when nothing refers to it any more.

    Attributes:
        size_bytes: memory it takes.
        signature: states of one model with equal signatures can be computed in one batch.
    """

    size_bytes: int
    signature: Hashable


class NoState(TaskState):
    """The state of what learns nothing."""

    size_bytes = 0
    signature = None


@dataclass(frozen=True, slots=True)
class AdaptedTask:
    """What came of adapting to a task.

    Attributes:
        state: the task state.
        losses: mean support loss before each inner step; empty for methods without steps.
        weights: what each support example counted; empty if all of a class counted the same.
    """

    state: TaskState
    losses: tuple[float, ...]
    weights: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class QueryGroup:
    """Queries of some tasks of a batch that are answered together, because they are of like size.

    Attributes:
        members: indices of the tasks in their batch.
        queries: raw inputs [Q, *input] of each of these tasks, of any Q but one element type.
    """

    members: list[int]
    queries: list[Array]


@dataclass(frozen=True, slots=True)
class AdaptBatch:
    """Tasks to learn together.

    Attributes:
        tasks: support sets of any sizes, their inputs of one element type.
        steps: inner steps, the same for all.
        width: classes to make room for, at least the largest `ways` (zero for regression).
        groups: queries to answer with what was learned; either none, or every task is a member of one group.
        abandoned: whether nobody waits for any of it any more; may be called by any thread.
    """

    tasks: Sequence[SupportSet]
    steps: int
    width: int
    groups: Sequence[QueryGroup] = ()
    abandoned: Callable[[], bool] = lambda: False

    @property
    def input_bytes(self) -> int:
        """Bytes of all inputs."""
        queries = sum(query.nbytes for group in self.groups for query in group.queries)
        return queries + sum(task.x.nbytes + task.y.nbytes for task in self.tasks)


@dataclass(frozen=True, slots=True)
class PredictBatch:
    """Queries to answer together.

    Attributes:
        states: task states with equal signatures.
        queries: raw inputs [Q, *input] for each state, of any Q but one element type.
    """

    states: Sequence[TaskState]
    queries: Sequence[Array]

    @property
    def input_bytes(self) -> int:
        """Bytes of all inputs, without those of the states."""
        return sum(query.nbytes for query in self.queries)


@dataclass(frozen=True, slots=True)
class ExtendBatch:
    """Task states to learn more examples into, together.

    Attributes:
        states: with equal signatures.
        tasks: the new examples of each, of any number, their inputs of one element type; `ways` are those afterwards.
        steps: as in AdaptBatch.
        width: as in AdaptBatch.
        abandoned: as in AdaptBatch.
    """

    states: Sequence[TaskState]
    tasks: Sequence[SupportSet]
    steps: int
    width: int
    abandoned: Callable[[], bool] = lambda: False

    @property
    def input_bytes(self) -> int:
        """Bytes of all inputs, without those of the states."""
        return sum(task.size_bytes for task in self.tasks)


@dataclass(frozen=True, slots=True)
class LeaveOutBatch:
    """Support sets whose examples are answered by tasks without them, together.

    Attributes:
        tasks: as in AdaptBatch.
        parts: of each task, one at least.
        steps: as in AdaptBatch.
        width: as in AdaptBatch.
        abandoned: as in AdaptBatch.
    """

    tasks: Sequence[SupportSet]
    parts: Sequence[Parts]
    steps: int
    width: int
    abandoned: Callable[[], bool] = lambda: False

    @property
    def input_bytes(self) -> int:
        """Bytes of all inputs."""
        return sum(task.size_bytes for task in self.tasks)


Batch = AdaptBatch | ExtendBatch | LeaveOutBatch | PredictBatch


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The results of a batch.

    Attributes:
        adapted: one for each task of an AdaptBatch or an ExtendBatch; empty for others.
        answers: one for each state of a PredictBatch, for each task of an AdaptBatch that brought queries, and for each
            task of a LeaveOutBatch, one part after the other.
        seconds: that each operation took that was asked for, without the encoder.
        encoder_seconds: that the frozen encoder in front of the model took; zero where there is none.
    """

    adapted: Sequence[AdaptedTask]
    answers: Sequence[Answers]
    seconds: Mapping[Operation, float]
    encoder_seconds: float = 0.0


class LoadedModel(ABC):
    """A bundle on a device; loading it again makes another one.

    Functions that compute block, and may run on several threads at a time.

    Attributes:
        name: that callers know it by.
        description: description of the bundle.
        calibration: how sure its answers are; None if the bundle has none.
        computed_by_workers: whether worker processes can compute its batches, too.
        states_on_host: whether task states lie in the host's memory, so that reading one never waits for a device.
        graph: what answers queries without the server, given a task state.
        encoder: answers queries with their features, as values, whatever the state; None for a model without a frozen
            encoder in front.
        feature_size: numbers that are computed once of each example, from which `left_out` answers; zero where the
            model must adapt to what is left without a part of the examples.
    """

    name: str
    description: ModelDescription
    calibration: Calibration | None = None
    computed_by_workers: bool = False
    states_on_host: bool = True
    graph: GraphFile | NoGraph = NoGraph("its model has no graph; go on asking the server")
    encoder: "LoadedModel | None" = None
    feature_size: int = 0

    @property
    def served(self) -> ServedModel:
        """The description of the model for callers."""
        return ServedModel(self.name, self.description)

    @property
    def head(self) -> "LoadedModel":
        """What follows the encoder, and takes features; the model itself where there is none."""
        return self

    @abstractmethod
    def prepare(self) -> None:
        """Try the model on a made-up task, and set everything up that the first requests would otherwise wait for.

        Raises:
            LoadError: the model fails on the task.
        """

    @abstractmethod
    def compile(self) -> None:
        """Make it faster, at length: this may run on any thread, while the model serves."""

    @abstractmethod
    def adapt(self, tasks: Sequence[SupportSet], steps: int, width: int, *, alone: bool = True) -> list[AdaptedTask]:
        """Learn a batch of tasks; raises MemoryFullError where there is no room for their states.

        Args:
            tasks: as in AdaptBatch.
            steps: as in AdaptBatch.
            width: as in AdaptBatch.
            alone: whether nothing else computes meanwhile, so that several cores may be used.
        """

    def extend(
        self, states: Sequence[TaskState], tasks: Sequence[SupportSet], steps: int, width: int, *, alone: bool = True
    ) -> list[AdaptedTask]:
        """Learn more examples into a batch of task states, which stay as they are; only if the model's traits say so.

        Args:
            states: as in ExtendBatch.
            tasks: as in ExtendBatch.
            steps: as in ExtendBatch.
            width: as in ExtendBatch.
            alone: whether nothing else computes meanwhile, so that several cores may be used.

        Raises:
            StateMismatchError: a state was made by a version of the server whose states could not learn more.
            MemoryFullError: there is no room for the new states.
        """
        raise NotImplementedError

    def left_out(
        self, tasks: Sequence[SupportSet], parts: Sequence[Parts], steps: int, width: int, *, alone: bool = True
    ) -> list[Answers]:
        """Answer examples of support sets by tasks without them, one part after the other; only with a `feature_size`.

        The answers are those of adapting to all other parts and asking about each part, up to rounding.

        Args:
            tasks: as in LeaveOutBatch.
            parts: as in LeaveOutBatch.
            steps: as in LeaveOutBatch.
            width: as in LeaveOutBatch.
            alone: whether nothing else computes meanwhile, so that several cores may be used.
        """
        raise NotImplementedError

    @abstractmethod
    def predict(self, states: Sequence[TaskState], queries: Sequence[Array], *, alone: bool = True) -> list[Answers]:
        """Answer a batch of tasks; raises MemoryFullError where there is no room to bring their states back.

        Args:
            states: as in PredictBatch.
            queries: as in PredictBatch.
            alone: whether nothing else computes meanwhile, so that several cores may be used.
        """

    def compute(self, batch: Batch, *, alone: bool) -> BatchResult:
        """Compute a batch on this thread.

        Raises:
            AbandonedError: nobody waits for it any more. It may be computed to its end nevertheless.
        """
        started = perf_counter()
        if isinstance(batch, PredictBatch):
            answers = self.predict(batch.states, batch.queries, alone=alone)
            return BatchResult([], answers, {Operation.PREDICT: perf_counter() - started})
        if isinstance(batch, ExtendBatch):
            extended = self.extend(batch.states, batch.tasks, batch.steps, batch.width, alone=alone)
            return BatchResult(extended, [], {Operation.EXTEND: perf_counter() - started})
        if isinstance(batch, LeaveOutBatch):
            answers = self.left_out(batch.tasks, batch.parts, batch.steps, batch.width, alone=alone)
            return BatchResult([], answers, {Operation.LEAVE_OUT: perf_counter() - started})
        adapted = self.adapt(batch.tasks, batch.steps, batch.width, alone=alone)
        between = perf_counter()
        if not batch.groups:
            return BatchResult(adapted, [], {Operation.ADAPT: between - started})
        answered = [
            self.predict([adapted[member].state for member in group.members], group.queries, alone=alone)
            for group in batch.groups
        ]
        seconds = {Operation.ADAPT: between - started, Operation.PREDICT: perf_counter() - between}
        return BatchResult(adapted, in_task_order(batch, answered), seconds)

    @abstractmethod
    def export_state(self, state: TaskState) -> bytes:
        """The content of a task state, which `import_state` takes in another process too.

        Raises:
            MemoryFullError: there is no room to bring the state back to the device.
        """

    @abstractmethod
    def import_state(self, content: bytes) -> TaskState:
        """The task state that `export_state` of a model of this digest and backend wrote.

        Raises:
            StateMismatchError: it was written for another model or backend, or is damaged.
            MemoryFullError: there is no room for it.
        """

    def state_tensors(self, state: TaskState) -> dict[str, Array]:
        """The tensors [1, ...] of a task state, by the names and in the types that inputs of a graph have.

        Raises:
            MemoryFullError: there is no room to bring the state back to the device.
        """
        raise NotImplementedError

    def is_finite(self, state: TaskState) -> bool:
        """Whether all that a task state holds are numbers; it is not when adapting diverged.

        Raises:
            MemoryFullError: there is no room to bring the state back to the device.
        """
        return all(bool(np.isfinite(tensor).all()) for tensor in self.state_tensors(state).values())

    def prefetch(self, state: TaskState) -> None:  # noqa: B027 - most engines gain nothing from it
        """Hear of a state that will be predicted with when it is its turn; may be called at any time, never waits."""

    def bytes_to_copy(self, batch: Batch, worker: "Worker") -> float:
        """Bytes that `send` and `take` copy; infinity where `send` must compute something first."""
        raise NotImplementedError

    def send(self, batch: Batch, worker: "Worker") -> None:
        """Have a worker compute a batch, which is called only where `computed_by_workers` is true.

        Raises:
            WorkerError: it can't.
        """
        raise NotImplementedError

    def take(self, batch: Batch, reply: Any, worker: "Worker") -> BatchResult:
        """Copy what the worker computed out of the memory shared with it, and keep the states.

        Args:
            batch: that was sent.
            reply: what `worker.receive` returned.
            worker: that computed it.

        Raises:
            WorkerError: it could not compute the batch.
            AbandonedError: it has stopped, since nobody waits for the batch any more.
            MemoryFullError: there is no room for the states.
        """
        raise NotImplementedError


def in_task_order(batch: AdaptBatch, answered: Sequence[Sequence[Answers]]) -> list[Answers]:
    """The answers to all groups of a batch, in the order of its tasks."""
    of_task = {
        member: answers
        for group, given in zip(batch.groups, answered, strict=True)
        for member, answers in zip(group.members, given, strict=True)
    }
    return [of_task[task] for task in range(len(batch.tasks))]


def adapted_tasks(
    states: Sequence[TaskState], losses: Array, weights: Array, tasks: Sequence[SupportSet]
) -> list[AdaptedTask]:
    """What came of adapting to each task of a batch.

    Args:
        states: of each task.
        losses: support losses, [T, steps] or, for methods without steps, [T, 0]; T may be padded.
        weights: of examples, [T, S] or, where all of a class count the same, [T, 0]; both sizes may be padded.
        tasks: the support sets.
    """
    return [
        AdaptedTask(state, tuple(history.tolist()), tuple(row[: task.size].tolist()))
        for state, history, row, task in zip(states, losses, weights, tasks, strict=False)
    ]


class Worker(ABC):
    """A process that computes batches for this one, one at a time."""

    @abstractmethod
    def fileno(self) -> int:
        """Descriptor that has something to read when a reply has come, the first one when the process has started."""

    @abstractmethod
    def receive(self) -> Any:
        """The reply that has come.

        Raises:
            WorkerError: the process has ended.
        """

    def abandon(self) -> None:  # noqa: B027 - it may finish as well
        """Tell the process that nobody waits for the batch that it computes: it may stop, and replies soon."""

    @abstractmethod
    def beats(self) -> int:
        """Signs of life that the process has given since it started: at least one a second, unless it is frozen."""

    @abstractmethod
    def stop(self) -> None:
        """End the process."""


class Engine(ABC):
    """Runs bundles on one device.

    Attributes:
        lanes: batches that run side by side without taking time from each other.
        threads: threads that feed the device; those beyond `lanes` make the next batch ready.
        largest_batch: tasks beyond which larger batches gain nothing.
        compiles: whether models shall be compiled once they serve.
    """

    lanes: int
    threads: int
    largest_batch: int
    compiles: bool

    def start_worker(self) -> Worker | None:
        """A new process that computes batches side by side with others; None where threads do that as well.

        Raises:
            OSError: the system has no room for another process.
        """
        return None

    @abstractmethod
    def load(self, name: str, path: Path, keys: TrustedKeys | None = None) -> LoadedModel:
        """Load a bundle under a name; blocks, and may run on any thread.

        Args:
            name: that callers know it by.
            path: of its folder.
            keys: of which one must have signed what is read of the bundle; None if anybody's will do.

        Raises:
            LoadError: the bundle is refused.
        """

    @abstractmethod
    def memory(self) -> Mapping[tuple[str, str], int]:
        """Bytes in use by (device, kind); kinds are allocated and reserved on an accelerator, resident on a CPU."""

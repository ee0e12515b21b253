"""One request's share of the device's work."""

import asyncio
import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Generic, Self, TypeVar

from innerloop_server.engine.interface import AdaptedTask, Answers, Array, SupportSet, TaskState
from innerloop_server.models.model import Model

R = TypeVar("R")


class Operation(StrEnum):
    """What a batch does."""

    ADAPT = "adapt"
    PREDICT = "predict"


class Deadline:
    """The moment after which an answer is of no use; mutable, because several callers may wait for one answer.

    Args:
        seconds: from now; None means never.
    """

    __slots__ = ("at",)

    def __init__(self, seconds: float | None = None) -> None:
        self.at = float("inf") if seconds is None else time.monotonic() + seconds

    @classmethod
    def until(cls, at: float) -> Self:
        """The deadline at a moment of the monotonic clock."""
        deadline = cls()
        deadline.at = at
        return deadline

    @property
    def passed(self) -> bool:
        """Whether it is too late."""
        return time.monotonic() >= self.at

    def within(self, seconds: float) -> bool:
        """Whether it will be too late in so many seconds."""
        return time.monotonic() + seconds >= self.at

    def extend(self, other: "Deadline") -> None:
        """Wait for the later of the two."""
        self.at = max(self.at, other.at)


@dataclass(frozen=True, slots=True)
class Computed(Generic[R]):
    """A job's result, the seconds it waited, and the seconds its batch took for each operation."""

    value: R
    queue_seconds: float
    seconds: Mapping[Operation, float]


@dataclass(frozen=True, slots=True)
class Learnt:
    """A task that was learned, and the answers to its queries if it brought any."""

    task: AdaptedTask
    answers: Answers | None


@dataclass(eq=False, slots=True)
class Job(Generic[R]):
    """A request waiting for the device or being computed.

    Attributes:
        model: what computes it.
        bucket: jobs of one model and operation with equal buckets can share a batch.
        size_bytes: of its inputs.
        deadline: after which it is dropped instead of computed.
        future: where its result goes; a cancelled one drops the job.
        submitted: when it began to wait, on the monotonic clock.
    """

    operation: ClassVar[Operation]

    model: Model
    bucket: Hashable
    size_bytes: int
    deadline: Deadline
    future: "asyncio.Future[Computed[R]]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    submitted: float = field(default_factory=time.monotonic)

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for the result any more."""
        return self.future.done()


@dataclass(eq=False, slots=True, kw_only=True)
class AdaptJob(Job[Learnt]):
    """Learn one task, and answer its queries at once if it brings any."""

    operation = Operation.ADAPT

    support: SupportSet
    steps: int
    width: int
    query: Array | None = None


@dataclass(eq=False, slots=True, kw_only=True)
class PredictJob(Job[Answers]):
    """Answer the queries of one task."""

    operation = Operation.PREDICT

    state: TaskState
    query: Array


AnyJob = AdaptJob | PredictJob

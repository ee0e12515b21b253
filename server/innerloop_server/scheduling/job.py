"""One request's share of the device's work."""

import asyncio
import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Generic, TypeVar

from innerloop_server.domain.answers import Answers
from innerloop_server.domain.callers import Caller
from innerloop_server.domain.deadline import Deadline
from innerloop_server.domain.tasks import Array, Parts, SupportSet
from innerloop_server.domain.timings import Operation
from innerloop_server.engine.interface import AdaptedTask, LoadedModel, TaskState
from innerloop_server.scheduling.policy import place_in_line

R = TypeVar("R")

UNKNOWN_SECONDS = 0.01
"""Seconds that a request counts for when turns are handed out, where nothing is known: accounts then take turns request
by request. What it takes in truth is charged when it has been computed."""


@dataclass(frozen=True, slots=True)
class Computed(Generic[R]):
    """A job's result, the seconds it waited, and the seconds its batch took in the encoder and for each operation."""

    value: R
    queue_seconds: float
    encoder_seconds: float
    seconds: Mapping[Operation, float]


@dataclass(eq=False, slots=True)
class Job(Generic[R]):
    """A request waiting for the device or being computed.

    Attributes:
        model: what computes it.
        bucket: jobs of one model and operation with equal buckets can share a batch.
        size_bytes: of its inputs.
        deadline: after which it is dropped instead of computed.
        caller: who asked for it.
        future: where its result goes; a cancelled one drops the job.
        rest: units of work that its request asks for later, of which this job is the next part.
        submitted: when it began to wait, on the monotonic clock.
        cost: seconds that its account is charged for it when it is taken.
    """

    operation: ClassVar[Operation]

    model: LoadedModel
    bucket: Hashable
    size_bytes: int
    deadline: Deadline
    caller: Caller
    future: "asyncio.Future[Computed[R]]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    rest: int = 0
    submitted: float = field(default_factory=lambda: time.monotonic())  # looked up anew, for clocks of tests
    cost: float = UNKNOWN_SECONDS

    @property
    def units(self) -> int:
        """The work of it: queries, or support examples times inner steps."""
        raise NotImplementedError

    @property
    def account(self) -> str:
        """The account of its caller, whose share of the device's time it uses."""
        return self.caller.account

    @property
    def place(self) -> float:
        """Its place among the jobs of its account: a lower one goes first."""
        return place_in_line(self.submitted, self.caller.priority)

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for the result any more."""
        return self.future.done()


@dataclass(eq=False, slots=True, kw_only=True)
class AdaptJob(Job[tuple[AdaptedTask, Answers | None]]):
    """Learn one task, and answer its queries at once if it brings any."""

    operation = Operation.ADAPT

    support: SupportSet
    steps: int
    width: int
    query: Array | None = None

    @property
    def units(self) -> int:
        """Passes over an example: one for each inner step, and one for each query."""
        return passes(self.support, self.steps) + (0 if self.query is None else len(self.query))


@dataclass(eq=False, slots=True, kw_only=True)
class ExtendJob(Job[AdaptedTask]):
    """Learn more examples into a task state."""

    operation = Operation.EXTEND

    state: TaskState
    support: SupportSet
    steps: int
    width: int

    @property
    def units(self) -> int:
        """Passes over an example, one for each inner step."""
        return passes(self.support, self.steps)


@dataclass(eq=False, slots=True, kw_only=True)
class LeaveOutJob(Job[Answers]):
    """Answer the examples of parts of a support set by tasks without them, one part after the other."""

    operation = Operation.LEAVE_OUT

    support: SupportSet
    parts: Parts
    steps: int
    width: int

    @property
    def units(self) -> int:
        """Passes over an example, one for each inner step, which all tasks without a part take together."""
        return passes(self.support, self.steps)


@dataclass(eq=False, slots=True, kw_only=True)
class PredictJob(Job[Answers]):
    """Answer the queries of one task."""

    operation = Operation.PREDICT

    state: TaskState
    query: Array

    @property
    def units(self) -> int:
        """Queries."""
        return len(self.query)


AnyJob = AdaptJob | ExtendJob | LeaveOutJob | PredictJob


def passes(support: SupportSet, steps: int) -> int:
    """How often an example is read: once in each inner step, and once where a method has no steps."""
    return support.size * max(steps, 1)

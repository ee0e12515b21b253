"""The batches that are being computed: how many, and when they will have ended as far as that is known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from innerloop_server.scheduling.job import AnyJob
from innerloop_server.scheduling.lanes import Lane
from innerloop_server.scheduling.policy import LONG_BATCH, is_short


@dataclass(eq=False, slots=True)
class RunningBatch:
    """One of them.

    Attributes:
        lane: that computes it.
        jobs: of it.
        seconds: that it is expected to take; zero if nothing is known.
        end: when it will have ended then, on the event loop's clock.
        short: whether it is known to be short.
        long: whether it is expected to be long.
    """

    lane: Lane
    jobs: Sequence[AnyJob]
    seconds: float
    end: float
    short: bool
    long: bool


class RunningBatches:
    """All of them.

    Args:
        side_by_side: batches that run without taking time from each other; those beyond wait for these.
        clock: the event loop's.

    Attributes:
        count, short, long: batches; those known to be short, and those expected to be long.
        jobs: of all batches.
        seconds: that all of them are expected to take from their beginnings.
    """

    def __init__(self, side_by_side: int, clock: Callable[[], float]) -> None:
        self._side_by_side = side_by_side
        self._clock = clock
        self._batches: list[RunningBatch] = []
        self._of_job: dict[AnyJob, RunningBatch] = {}
        self.count = self.short = self.long = self.jobs = 0
        self.seconds = 0.0

    def begin(self, lane: Lane, jobs: Sequence[AnyJob], seconds_each: float | None, seconds: float) -> RunningBatch:
        """Count a batch from now on.

        Args:
            lane: that computes it.
            jobs: of it.
            seconds_each: that a job takes at least; None if unknown.
            seconds: that all are expected to take; zero if unknown.
        """
        short, long = is_short(seconds_each, len(jobs)), seconds > LONG_BATCH
        batch = RunningBatch(lane, jobs, seconds, self.free_at() + seconds, short, long)
        self._batches.append(batch)
        self._of_job.update(dict.fromkeys(jobs, batch))
        self._count(batch, 1)
        return batch

    def end(self, batch: RunningBatch) -> None:
        """Count a batch no more."""
        self._batches.remove(batch)
        for job in batch.jobs:
            del self._of_job[job]
        self._count(batch, -1)
        if not self._batches:
            self.seconds = 0.0  # without what rounding has left

    def abandon(self, job: AnyJob) -> None:
        """Let the batch of a job stop, if it has one and nobody waits for any of it any more."""
        batch = self._of_job.get(job)
        if batch is not None and all(each.abandoned for each in batch.jobs):
            batch.lane.abandon()

    def free_at(self) -> float:
        """When the device can begin with another batch, on the event loop's clock."""
        now, first = self._clock(), len(self._batches) - self._side_by_side
        return now if first < 0 else max(now, sorted(batch.end for batch in self._batches)[first])

    def work_left(self, *, long: bool) -> tuple[float, int]:
        """Seconds of lanes' work that are left, and the number of lanes that will be free for others after it.

        Args:
            long: whether long batches count, or the lanes that compute them are left out.
        """
        now = self._clock()
        counted = self._batches if long else [batch for batch in self._batches if not batch.long]
        left = sum(min(max(batch.end - now, 0.0), batch.seconds) for batch in counted)
        return left, max(self._side_by_side - (len(self._batches) - len(counted)), 1)

    def _count(self, batch: RunningBatch, times: int) -> None:
        self.count += times
        self.short += times * batch.short
        self.long += times * batch.long
        self.jobs += times * len(batch.jobs)
        self.seconds += times * batch.seconds

"""Requests waiting for the device, and whose turn it is."""

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from innerloop_server.domain.errors import DeadlinePassedError
from innerloop_server.domain.timings import Operation
from innerloop_server.engine.interface import LoadedModel
from innerloop_server.scheduling.job import AnyJob

LATEST_BATCHES, MOST_BUCKETS = 32, 256
"""Whose times are remembered: of each bucket, and buckets of a model's operation."""

K = TypeVar("K")
T = TypeVar("T")


@dataclass(frozen=True)
class BatchLimits:
    """How much may be computed at once.

    Attributes:
        tasks: most requests of one batch.
        size_bytes: most input bytes of one batch; a request larger than that runs alone.
        seconds: longest that a batch of several shall take, going by those before.
        spread: batches that share evenly what waits of one bucket and what is being computed of it.
    """

    tasks: int
    size_bytes: int
    seconds: float = math.inf
    spread: int = 1


class BatchTimes:
    """How long jobs of each bucket take when nothing is in their way: the shortest time of the latest batches.

    Their mean would grow with what else runs, and what depends on it would depend on itself.
    """

    def __init__(self) -> None:
        self._latest: OrderedDict[Hashable, deque[float]] = OrderedDict()

    def note(self, bucket: Hashable, seconds: float, jobs: int) -> None:
        """Take note of a batch of so many jobs."""
        latest = self._latest.setdefault(bucket, deque(maxlen=LATEST_BATCHES))
        latest.append(seconds / jobs)
        self._latest.move_to_end(bucket)
        if len(self._latest) > MOST_BUCKETS:
            self._latest.popitem(last=False)

    def expected(self, bucket: Hashable, jobs: int) -> float | None:
        """Seconds that so many jobs will take at least; None if none has been computed lately."""
        latest = self._latest.get(bucket)
        return min(latest) * jobs if latest else None


class OperationQueue:
    """Waiting jobs of one model and operation, by bucket, in order of arrival.

    Attributes:
        times: of its batches.
        depth: jobs that wait.
        size_bytes: of their inputs.
    """

    def __init__(self) -> None:
        self._buckets: dict[Hashable, OrderedDict[AnyJob, None]] = {}
        self._taken: Counter[Hashable] = Counter()  # and not ended
        self.times = BatchTimes()
        self.depth = 0
        self.size_bytes = 0

    def add(self, job: AnyJob) -> None:
        """Let a job wait."""
        self._buckets.setdefault(job.bucket, OrderedDict())[job] = None
        self.depth += 1
        self.size_bytes += job.size_bytes

    def discard(self, job: AnyJob) -> bool:
        """Forget a job; false when it is not waiting any more."""
        bucket = self._buckets.get(job.bucket)
        if bucket is None or job not in bucket:
            return False
        del bucket[job]
        if not bucket:
            del self._buckets[job.bucket]
        self.depth -= 1
        self.size_bytes -= job.size_bytes
        return True

    def is_full(self, limits: BatchLimits) -> bool:
        """Whether the next batch has all the jobs that it may have, or as many as are computed of its bucket."""
        bucket, jobs = self._longest_waiting()
        most = self._most(bucket, limits)
        return len(jobs) >= (most if limits.spread == 1 else min(self._taken[bucket], most))

    def expected(self, limits: BatchLimits) -> float | None:
        """Seconds that the next batch will take at least; None if that isn't known."""
        bucket, jobs = self._longest_waiting()
        return self.times.expected(bucket, min(len(jobs), self._most(bucket, limits)))

    def take(self, limits: BatchLimits) -> list[AnyJob]:
        """The next batch, in order of arrival; jobs that nobody waits for or that are too late are dropped."""
        batch: list[AnyJob] = []
        bucket, waiting = self._longest_waiting()
        size_bytes, most = 0, self._most(bucket, limits)
        for job in list(waiting):
            if drop_if_useless(job):
                self.discard(job)
                continue
            if batch and (len(batch) >= most or size_bytes + job.size_bytes > limits.size_bytes):
                break
            self.discard(job)
            batch.append(job)
            size_bytes += job.size_bytes
        if batch:  # what a client makes up must not be remembered
            self._taken[bucket] += len(batch)
        return batch

    def ended(self, bucket: Hashable, jobs: int) -> None:
        """So many jobs that were taken are not computed any more."""
        self._taken[bucket] -= jobs
        if not self._taken[bucket]:
            del self._taken[bucket]

    def _longest_waiting(self) -> tuple[Hashable, OrderedDict[AnyJob, None]]:
        """The bucket whose first job has waited longest."""
        return min(self._buckets.items(), key=lambda item: next(iter(item[1])).submitted)

    def _most(self, bucket: Hashable, limits: BatchLimits) -> int:
        """How many jobs of a bucket a batch may have."""
        most, alone, taken = limits.tasks, self.times.expected(bucket, 1), self._taken[bucket]
        if taken and limits.spread > 1:
            most = min(-(-(len(self._buckets[bucket]) + taken) // limits.spread), most)
        return most if not alone else max(int(min(limits.seconds / alone, most)), 1)


class _Turn(Generic[T]):
    """Someone who takes turns with others, by the device's time that each has had.

    Attributes:
        of: what waits.
        had: seconds of the device, divided by its weight.
    """

    def __init__(self, of: T) -> None:
        self.of = of
        self.had = 0.0


class _Turns(Generic[K, T]):
    """Those who take turns: whoever has had least of the device's time is next (start-time fair queueing).

    One that comes back after a pause begins where the others are, so that nobody saves time up; or where it was, if
    that is later, so that nobody gets rid of what it has had by leaving, as one does whose last requests are taken.

    Args:
        make: makes what a newcomer lets wait.

    Attributes:
        waiting: those of whom something waits.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._known: WeakKeyDictionary[K, _Turn[T]] = WeakKeyDictionary()
        self._reached = 0.0
        self.waiting: dict[K, _Turn[T]] = {}

    def join(self, key: K) -> T:
        """What `key` lets wait, who waits from now on."""
        if key not in self.waiting:
            turn = self.waiting[key] = self._known.setdefault(key, _Turn(self._make()))
            turn.had = max(turn.had, self._reached)
        return self.waiting[key].of

    def in_turn(self) -> list[tuple[K, T]]:
        """Those who wait, whoever is next first."""
        waiting = sorted(self.waiting.items(), key=lambda item: item[1].had)
        return [(key, turn.of) for key, turn in waiting]

    def begin(self, key: K) -> None:
        """Take note that `key`, who waits, has its turn."""
        self._reached = self.waiting[key].had

    def charge(self, key: K, seconds: float) -> T:
        """Count time against `key`, who has joined before, and say what it lets wait."""
        self._known[key].had += seconds
        return self.of(key)

    def of(self, key: K) -> T:
        """What `key` lets wait, who has joined before."""
        return self._known[key].of


class FairQueue:
    """All that waits. Models share the device's time evenly, and operations within a model by their weights.

    Args:
        weights: of the operations.
    """

    def __init__(self, weights: Mapping[Operation, float]) -> None:
        self._weights = weights
        self._models: _Turns[LoadedModel, _Turns[Operation, OperationQueue]] = _Turns(lambda: _Turns(OperationQueue))

    def add(self, job: AnyJob) -> None:
        """Let a job wait for its turn."""
        self._models.join(job.model).join(job.operation).add(job)

    def discard(self, job: AnyJob) -> bool:
        """Forget a job; false when it is not waiting any more."""
        queue = self._queue(job.model, job.operation)
        if queue is None or not queue.discard(job):
            return False
        self._remove_empty(job.model, job.operation)
        return True

    @property
    def depth(self) -> int:
        """Jobs that wait, of all models."""
        return sum(queue.of.depth for turn in self._models.waiting.values() for queue in turn.of.waiting.values())

    def depth_of(self, model: LoadedModel, operation: Operation) -> int:
        """Jobs of one model and operation that wait."""
        queue = self._queue(model, operation)
        return queue.depth if queue else 0

    def load(self, model: LoadedModel) -> tuple[int, int]:
        """Jobs of one model that wait, and their bytes."""
        queues = [queue for queue in (self._queue(model, operation) for operation in Operation) if queue is not None]
        return sum(queue.depth for queue in queues), sum(queue.size_bytes for queue in queues)

    def next_batch(self, limits: BatchLimits, *, full: bool = False, least_seconds: float = 0.0) -> list[AnyJob]:
        """Take the batch whose turn it is; empty when nothing waits that may be taken.

        Args:
            limits: of the batch.
            full: leave it waiting, to grow, if it has fewer jobs than it may have; where these are spread, take the
                next in turn then.
            least_seconds: leave it waiting, and take the next in turn, if it is known to take less.
        """
        while (turn := self._next_turn(limits, full=full, least_seconds=least_seconds)) is not None:
            model, operation = turn
            operations = self._models.of(model)
            self._models.begin(model)
            operations.begin(operation)
            batch = operations.of(operation).take(limits)
            self._remove_empty(model, operation)
            if batch:  # or all of them were dropped, and others may wait behind them
                return batch
        return []

    def _next_turn(
        self, limits: BatchLimits, *, full: bool, least_seconds: float
    ) -> tuple[LoadedModel, Operation] | None:
        """Whose turn it is, arguments as in `next_batch`; None if nothing waits that may be taken."""
        for model, operations in self._models.in_turn():
            for operation, queue in operations.in_turn():
                if full:
                    if queue.is_full(limits):
                        return model, operation
                    if limits.spread == 1:
                        return None  # it comes first when a lane is free
                    continue  # of it, some are being computed
                expected = queue.expected(limits) if least_seconds else None
                if expected is None or expected >= least_seconds:
                    return model, operation
        return None

    def expected(self, batch: Sequence[AnyJob]) -> float | None:
        """Seconds that a batch will take at least; None if that isn't known."""
        job = batch[0]
        return self._models.of(job.model).of(job.operation).times.expected(job.bucket, len(batch))

    def charge(self, batch: Sequence[AnyJob], seconds: float, computed: int) -> None:
        """Count the device's time on a batch that was taken against its model and operation.

        Args:
            batch: all that was taken.
            seconds: of the device.
            computed: jobs that the time says something of; none where they failed.
        """
        job = batch[0]
        queue = self._models.charge(job.model, seconds).charge(job.operation, seconds / self._weights[job.operation])
        queue.ended(job.bucket, len(batch))
        if computed:
            queue.times.note(job.bucket, seconds, computed)

    def _queue(self, model: LoadedModel, operation: Operation) -> OperationQueue | None:
        turn = self._models.waiting.get(model)
        return turn.of.waiting[operation].of if turn is not None and operation in turn.of.waiting else None

    def _remove_empty(self, model: LoadedModel, operation: Operation) -> None:
        operations = self._models.waiting[model].of
        if not operations.waiting[operation].of.depth:
            del operations.waiting[operation]
        if not operations.waiting:
            del self._models.waiting[model]


def drop_if_useless(job: AnyJob) -> bool:
    """Whether a job need not be computed; one whose deadline has passed is told so."""
    if job.abandoned:
        return True
    if job.deadline.passed:
        job.future.set_exception(DeadlinePassedError())
        return True
    return False

"""Requests that wait, in order: models and operations take turns, and requests of one bucket go by arrival.

How many of them make a batch, and whether a batch is taken yet, is for the policy to say.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from innerloop_server.domain.errors import DeadlinePassedError
from innerloop_server.domain.timings import Operation
from innerloop_server.engine.interface import LoadedModel
from innerloop_server.scheduling.job import AnyJob
from innerloop_server.scheduling.policy import BatchTimes, BucketLoad

K = TypeVar("K")
T = TypeVar("T")

Rule = Callable[[BucketLoad], int]
"""Says how many requests of a bucket the next batch may have; zero leaves them waiting."""


class OperationQueue:
    """Waiting jobs of one model and operation, by bucket, in order of arrival.

    Attributes:
        times: of its batches.
        depth: jobs that wait.
        size_bytes: of their inputs.
    """

    def __init__(self) -> None:
        self._buckets: dict[Hashable, OrderedDict[AnyJob, None]] = {}
        self._running: Counter[Hashable] = Counter()  # jobs that were taken and have not ended
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

    def next_size(self, rule: Rule) -> int:
        """How many jobs the next batch may have, which is of the bucket whose first job has waited longest."""
        bucket = self._longest_waiting()
        load = BucketLoad(len(self._buckets[bucket]), self._running[bucket], self.times.seconds_each(bucket))
        return rule(load)

    def take(self, most: int, size_bytes: int) -> list[AnyJob]:
        """The next batch, in order of arrival; jobs that nobody waits for or that are too late are dropped.

        Args:
            most: jobs of the batch.
            size_bytes: most bytes of their inputs; a job larger than that is taken alone.
        """
        batch: list[AnyJob] = []
        bucket = self._longest_waiting()
        for job in list(self._buckets[bucket]):
            if drop_if_useless(job):
                self.discard(job)
                continue
            if batch and (len(batch) >= most or size_bytes < job.size_bytes):
                break
            self.discard(job)
            batch.append(job)
            size_bytes -= job.size_bytes
        if batch:  # what a client makes up must not be remembered
            self._running[bucket] += len(batch)
        return batch

    def ended(self, bucket: Hashable, jobs: int) -> None:
        """Record that a number of jobs that were taken are no longer being computed."""
        self._running[bucket] -= jobs
        if not self._running[bucket]:
            del self._running[bucket]

    def _longest_waiting(self) -> Hashable:
        return min(self._buckets, key=lambda bucket: next(iter(self._buckets[bucket])).submitted)


class _Share(Generic[T]):
    """What one of those who take turns lets wait, and the device's time that it has had.

    Attributes:
        queue: what waits.
        had: seconds of the device, divided by its weight.
    """

    def __init__(self, queue: T) -> None:
        self.queue = queue
        self.had = 0.0


class FairTurns(Generic[K, T]):
    """Those who take turns: whoever has had least of the device's time is next (start-time fair queueing).

    One that comes back after a pause begins where the others are, so that nobody saves time up; or where it was, if
    that is later, so that nobody gets rid of what it has had by leaving, as one does whose last requests are taken.

    Args:
        make_queue: makes what a newcomer lets wait.

    Attributes:
        waiting: those of whom something waits.
    """

    def __init__(self, make_queue: Callable[[], T]) -> None:
        self._make_queue = make_queue
        self._known: WeakKeyDictionary[K, _Share[T]] = WeakKeyDictionary()
        self._reached = 0.0  # the device's time that the key of the latest turn had had
        self.waiting: dict[K, _Share[T]] = {}

    def join(self, key: K) -> T:
        """The queue of `key`, which takes turns from now on."""
        if key not in self.waiting:
            share = self.waiting[key] = self._known.setdefault(key, _Share(self._make_queue()))
            share.had = max(share.had, self._reached)
        return self.waiting[key].queue

    def in_turn(self) -> list[tuple[K, T]]:
        """The waiting keys and their queues, in the order of their turns."""
        waiting = sorted(self.waiting.items(), key=lambda item: item[1].had)
        return [(key, share.queue) for key, share in waiting]

    def begin(self, key: K) -> None:
        """Record that the turn of `key`, which waits, begins."""
        self._reached = self.waiting[key].had

    def charge(self, key: K, seconds: float) -> T:
        """Add to the device's time that `key`, which has joined before, has had; returns its queue."""
        self._known[key].had += seconds
        return self.queue_of(key)

    def queue_of(self, key: K) -> T:
        """The queue of `key`, which has joined before."""
        return self._known[key].queue

    def leave(self, key: K) -> None:
        """Record that nothing of `key` waits any more."""
        del self.waiting[key]


class FairQueue:
    """All that waits. Models share the device's time evenly, and operations within a model by their weights.

    Args:
        weights: of the operations.
    """

    def __init__(self, weights: Mapping[Operation, float]) -> None:
        self._weights = weights
        self._models: FairTurns[LoadedModel, FairTurns[Operation, OperationQueue]] = FairTurns(
            lambda: FairTurns(OperationQueue)
        )

    def add(self, job: AnyJob) -> None:
        """Let a job wait for its turn."""
        self._models.join(job.model).join(job.operation).add(job)

    def discard(self, job: AnyJob) -> bool:
        """Forget a job; false when it is not waiting any more."""
        queue = self._waiting(job.model, job.operation)
        if queue is None or not queue.discard(job):
            return False
        self._leave_if_empty(job.model, job.operation)
        return True

    @property
    def depth(self) -> int:
        """Jobs that wait, of all models."""
        operations = (share.queue for share in self._models.waiting.values())
        return sum(share.queue.depth for turns in operations for share in turns.waiting.values())

    def depth_of(self, model: LoadedModel, operation: Operation) -> int:
        """Jobs of one model and operation that wait."""
        queue = self._waiting(model, operation)
        return queue.depth if queue else 0

    def load(self, model: LoadedModel) -> tuple[int, int]:
        """Jobs of one model that wait, and their bytes."""
        queues = [queue for queue in (self._waiting(model, operation) for operation in Operation) if queue is not None]
        return sum(queue.depth for queue in queues), sum(queue.size_bytes for queue in queues)

    def next_batch(self, rule: Rule, size_bytes: int) -> list[AnyJob]:
        """Take the batch whose turn it is; empty when nothing waits that may be taken.

        Args:
            rule: says how many jobs of a bucket may be taken; where it says none, the next in turn comes first.
            size_bytes: most input bytes of a batch; a job larger than that is taken alone.
        """
        while (found := self._next_turn(rule)) is not None:
            model, operation, most = found
            operations = self._models.queue_of(model)
            self._models.begin(model)
            operations.begin(operation)
            batch = operations.queue_of(operation).take(most, size_bytes)
            self._leave_if_empty(model, operation)
            if batch:  # or all of them were dropped, and others may wait behind them
                return batch
        return []

    def seconds_each(self, job: AnyJob) -> float | None:
        """Seconds that a job which was taken takes at least; None if that isn't known."""
        return self._models.queue_of(job.model).queue_of(job.operation).times.seconds_each(job.bucket)

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

    def _next_turn(self, rule: Rule) -> tuple[LoadedModel, Operation, int] | None:
        """The model and operation whose turn it is, and the number of jobs to take; None if none may be taken."""
        for model, operations in self._models.in_turn():
            for operation, queue in operations.in_turn():
                most = queue.next_size(rule)
                if most:
                    return model, operation, most
        return None

    def _waiting(self, model: LoadedModel, operation: Operation) -> OperationQueue | None:
        share = self._models.waiting.get(model)
        return share.queue.waiting[operation].queue if share is not None and operation in share.queue.waiting else None

    def _leave_if_empty(self, model: LoadedModel, operation: Operation) -> None:
        operations = self._models.queue_of(model)
        if not operations.queue_of(operation).depth:
            operations.leave(operation)
        if not operations.waiting:
            self._models.leave(model)


def drop_if_useless(job: AnyJob) -> bool:
    """Whether a job need not be computed; one whose deadline has passed is told so."""
    if job.abandoned:
        return True
    if job.deadline.passed:
        job.future.set_exception(DeadlinePassedError())
        return True
    return False

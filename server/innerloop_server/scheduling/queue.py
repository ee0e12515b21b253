"""Requests waiting for the device, and whose turn it is."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from innerloop_server.errors import DeadlinePassedError
from innerloop_server.models.model import Model
from innerloop_server.scheduling.job import AnyJob, Operation

K = TypeVar("K")
T = TypeVar("T")


@dataclass(frozen=True)
class BatchLimits:
    """How much may be computed at once.

    Attributes:
        tasks: most requests of one batch.
        size_bytes: most input bytes of one batch; a request larger than that runs alone.
    """

    tasks: int
    size_bytes: int


class OperationQueue:
    """Waiting jobs of one model and operation, by bucket, in order of arrival."""

    def __init__(self) -> None:
        self._buckets: dict[Hashable, OrderedDict[AnyJob, None]] = {}
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

    def longest_waiting(self) -> OrderedDict[AnyJob, None]:
        """The bucket whose first job has waited longest."""
        return min(self._buckets.values(), key=lambda bucket: next(iter(bucket)).submitted)

    def take(self, limits: BatchLimits) -> list[AnyJob]:
        """The next batch, in order of arrival; jobs that nobody waits for or that are too late are dropped."""
        batch: list[AnyJob] = []
        size_bytes = 0
        for job in list(self.longest_waiting()):
            if drop_if_useless(job):
                self.discard(job)
                continue
            if batch and (len(batch) >= limits.tasks or size_bytes + job.size_bytes > limits.size_bytes):
                break
            self.discard(job)
            batch.append(job)
            size_bytes += job.size_bytes
        return batch


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

    def next(self) -> tuple[K, T]:
        """Whose turn it is; someone must wait."""
        key, turn = min(self.waiting.items(), key=lambda item: item[1].had)
        self._reached = turn.had
        return key, turn.of

    def charge(self, key: K, seconds: float) -> T:
        """Count time against `key`, who has joined before, and say what it lets wait."""
        turn = self._known[key]
        turn.had += seconds
        return turn.of


class FairQueue:
    """All that waits. Models share the device's time evenly, and operations within a model by their weights.

    Args:
        weights: of the operations.
    """

    def __init__(self, weights: Mapping[Operation, float]) -> None:
        self._weights = weights
        self._models: _Turns[Model, _Turns[Operation, OperationQueue]] = _Turns(lambda: _Turns(OperationQueue))

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

    def depth_of(self, model: Model, operation: Operation) -> int:
        """Jobs of one model and operation that wait."""
        queue = self._queue(model, operation)
        return queue.depth if queue else 0

    def load(self, model: Model) -> tuple[int, int]:
        """Jobs of one model that wait, and their bytes."""
        queues = [queue for queue in (self._queue(model, operation) for operation in Operation) if queue is not None]
        return sum(queue.depth for queue in queues), sum(queue.size_bytes for queue in queues)

    def next_batch(self, limits: BatchLimits, *, least: int = 1) -> list[AnyJob]:
        """Take the batch whose turn it is; empty when nothing waits.

        Args:
            limits: of the batch.
            least: leave it waiting, to grow, if it has fewer jobs than that.
        """
        while self._models.waiting:
            model, operations = self._models.next()
            operation, queue = operations.next()
            if len(queue.longest_waiting()) < least:
                return []
            batch = queue.take(limits)
            self._remove_empty(model, operation)
            if batch:
                return batch
        return []

    def charge(self, model: Model, operation: Operation, seconds: float) -> None:
        """Count device time against a model and its operation, whose jobs have waited here."""
        self._models.charge(model, seconds).charge(operation, seconds / self._weights[operation])

    def _queue(self, model: Model, operation: Operation) -> OperationQueue | None:
        turn = self._models.waiting.get(model)
        return turn.of.waiting[operation].of if turn is not None and operation in turn.of.waiting else None

    def _remove_empty(self, model: Model, operation: Operation) -> None:
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

"""Requests waiting for the device, and whose turn it is."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

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

    def __init__(self, of: T, had: float) -> None:
        self.of = of
        self.had = had


class FairQueue:
    """All that waits. Models share the device's time evenly, and operations within a model by their weights.

    Whoever has had least of it is next (start-time fair queueing): one that comes back after a pause begins where the
    others are, so that nobody saves time up.

    Args:
        weights: of the operations.
    """

    def __init__(self, weights: Mapping[Operation, float]) -> None:
        self._weights = weights
        self._models: dict[Model, _Turn[dict[Operation, _Turn[OperationQueue]]]] = {}

    def add(self, job: AnyJob) -> None:
        """Let a job wait for its turn."""
        operations = _join(self._models, job.model, dict).of
        _join(operations, job.operation, OperationQueue).of.add(job)

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
        return sum(queue.of.depth for turn in self._models.values() for queue in turn.of.values())

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
        while self._models:
            model, operations = min(self._models.items(), key=lambda item: item[1].had)
            operation, queue = min(operations.of.items(), key=lambda item: item[1].had)
            if len(queue.of.longest_waiting()) < least:
                return []
            batch = queue.of.take(limits)
            self._remove_empty(model, operation)
            if batch:
                return batch
        return []

    def charge(self, model: Model, operation: Operation, seconds: float) -> None:
        """Count device time against a model and its operation, if they still wait for more."""
        turn = self._models.get(model)
        if turn is None:
            return
        turn.had += seconds
        if operation in turn.of:
            turn.of[operation].had += seconds / self._weights[operation]

    def _queue(self, model: Model, operation: Operation) -> OperationQueue | None:
        turn = self._models.get(model)
        return turn.of[operation].of if turn is not None and operation in turn.of else None

    def _remove_empty(self, model: Model, operation: Operation) -> None:
        operations = self._models[model].of
        if not operations[operation].of.depth:
            del operations[operation]
        if not operations:
            del self._models[model]


def _join(turns: dict[K, _Turn[T]], key: K, make: Callable[[], T]) -> _Turn[T]:
    """The turn of `key`, who joins with as much time as the one who has had least."""
    if key not in turns:
        turns[key] = _Turn(make(), min((turn.had for turn in turns.values()), default=0.0))
    return turns[key]


def drop_if_useless(job: AnyJob) -> bool:
    """Whether a job need not be computed; one whose deadline has passed is told so."""
    if job.abandoned:
        return True
    if job.deadline.passed:
        job.future.set_exception(DeadlinePassedError())
        return True
    return False

"""Requests waiting for the device, and whose turn it is."""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from innerloop_server.errors import DeadlinePassedError
from innerloop_server.models.model import Model
from innerloop_server.scheduling.job import AnyJob, Operation


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
            if batch and (len(batch) == limits.tasks or size_bytes + job.size_bytes > limits.size_bytes):
                break
            self.discard(job)
            batch.append(job)
            size_bytes += job.size_bytes
        return batch


class FairQueue:
    """All that waits: models take turns, and so do adapting and predicting within a model."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        # The first model is next; within a model, the first operation is.
        self._models: OrderedDict[Model, OrderedDict[Operation, OperationQueue]] = OrderedDict()

    def add(self, job: AnyJob) -> None:
        """Let a job wait for its turn."""
        operations = self._models.setdefault(job.model, OrderedDict())
        operations.setdefault(job.operation, OperationQueue()).add(job)

    def discard(self, job: AnyJob) -> bool:
        """Forget a job; false when it is not waiting any more."""
        queue = self._queue(job.model, job.operation)
        if queue is None or not queue.discard(job):
            return False
        self._remove_empty(job.model, job.operation)
        return True

    def depth(self, model: Model, operation: Operation) -> int:
        """Jobs of one model and operation that wait."""
        queue = self._queue(model, operation)
        return queue.depth if queue else 0

    def load(self, model: Model) -> tuple[int, int]:
        """Jobs of one model that wait, and their bytes."""
        queues = [queue for queue in (self._queue(model, operation) for operation in Operation) if queue is not None]
        return sum(queue.depth for queue in queues), sum(queue.size_bytes for queue in queues)

    def next_batch(self, *, only_full: bool = False) -> list[AnyJob]:
        """Take the batch whose turn it is; empty when nothing waits.

        Args:
            only_full: leave it waiting, to grow, unless it is as large as a batch may be.
        """
        while self._models:
            model, operations = next(iter(self._models.items()))
            operation, queue = next(iter(operations.items()))
            if only_full and len(queue.longest_waiting()) < self._limits.tasks:
                return []
            batch = queue.take(self._limits)
            self._models.move_to_end(model)
            operations.move_to_end(operation)
            self._remove_empty(model, operation)
            if batch:
                return batch
        return []

    def _queue(self, model: Model, operation: Operation) -> OperationQueue | None:
        operations = self._models.get(model)
        return None if operations is None else operations.get(operation)

    def _remove_empty(self, model: Model, operation: Operation) -> None:
        operations = self._models[model]
        if not operations[operation].depth:
            del operations[operation]
        if not operations:
            del self._models[model]


def drop_if_useless(job: AnyJob) -> bool:
    """Whether a job need not be computed; one whose deadline has passed is told so."""
    if job.abandoned:
        return True
    if job.deadline.passed:
        job.future.set_exception(DeadlinePassedError())
        return True
    return False

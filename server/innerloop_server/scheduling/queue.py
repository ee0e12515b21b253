"""All requests that wait, in order: models take turns, within a model operations, and within an operation accounts.

How many of them make a batch, and whether a batch is taken yet, is for the policy to say.
"""

import math
import time
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

from innerloop_server.domain.timings import Operation
from innerloop_server.engine.interface import LoadedModel
from innerloop_server.scheduling.fair_turns import FairTurns
from innerloop_server.scheduling.job import AnyJob
from innerloop_server.scheduling.operation_queue import OperationQueue, Rule
from innerloop_server.scheduling.policy import COMPANY_SECONDS, BatchPolicy

Operations = FairTurns[Operation, OperationQueue]


class FairQueue:
    """All that waits. Models share the device's time evenly, operations within a model by their weights.

    Args:
        weights: of the operations.
        policy: says how large batches are, and who joins them.

    Attributes:
        depth: jobs that wait, of all models.
        size_bytes: of their inputs.
        cost: of them all, in seconds of a lane: more than it takes to compute them, if they are computed together.
    """

    def __init__(self, weights: Mapping[Operation, float], policy: BatchPolicy) -> None:
        self._weights = weights
        self._models: FairTurns[LoadedModel, Operations] = FairTurns(lambda: FairTurns(lambda: OperationQueue(policy)))

        self.depth = self.size_bytes = 0
        self.cost = 0.0
        self._latest_account: Hashable = None
        self._company_until = -math.inf  # on the monotonic clock

    def add(self, job: AnyJob) -> None:
        """Let a job wait for its turn."""
        if job.account != self._latest_account:
            if self._latest_account is not None:
                self._company_until = job.submitted + COMPANY_SECONDS
            self._latest_account = job.account
        self._models.join(job.model).join(job.operation).add(job)
        self._count(1, job.size_bytes, job.cost)

    def discard(self, job: AnyJob) -> bool:
        """Forget a job; false when it is not waiting any more."""
        queue = self._waiting(job.model, job.operation)
        if queue is None or not queue.discard(job):
            return False
        self._count(-1, -job.size_bytes, -job.cost)
        self._leave_if_empty(job.model, job.operation)
        return True

    def depth_of(self, model: LoadedModel, operation: Operation) -> int:
        """Jobs of one model and operation that wait."""
        queue = self._waiting(model, operation)
        return queue.depth if queue else 0

    def load(self, model: LoadedModel) -> tuple[int, int]:
        """Jobs of one model that wait, and their bytes."""
        queues = self._queues(model)
        return sum(queue.depth for queue in queues), sum(queue.size_bytes for queue in queues)

    def waiting_of(self, model: LoadedModel, account: Hashable, *, by_bytes: bool = False) -> int:
        """Jobs of one account that wait for a model, or their bytes."""
        return sum(queue.waiting_of(by_bytes=by_bytes).get(account, 0) for queue in self._queues(model))

    def most_waiting(self, model: LoadedModel, *, by_bytes: bool) -> tuple[Hashable, int]:
        """The account of which most jobs, or most bytes, wait for a model, and how many these are."""
        waiting: Counter[Hashable] = Counter()
        for queue in self._queues(model):
            waiting.update(queue.waiting_of(by_bytes=by_bytes))
        ((account, most),) = waiting.most_common(1)
        return account, most

    def last_of(self, model: LoadedModel, account: Hashable) -> AnyJob | None:
        """The job of an account that is the last in its line, of those that wait for a model; None if none does."""
        queues = [queue for queue in self._queues(model) if account in queue.waiting_of(by_bytes=False)]
        return max((queue.last_of(account) for queue in queues), key=lambda job: job.place, default=None)

    def work_before(self, job: AnyJob, *, long: bool) -> float:
        """Seconds of a lane's work that come before a job that has just arrived, as far as they are known.

        Those who take turns with it get as much as is ahead of it in its own line, if they have as much to do.

        Args:
            job: that arrives.
            long: whether it is long itself. Other long ones do not hold one up that is not.
        """
        operations, queue = self._models.find(job.model), self._known(job)
        if operations is None or queue is None:
            return 0.0
        ahead = queue.ahead_of(job, long=long)
        each = ahead / self._weights[job.operation]
        for operation, share in operations.waiting.items():
            if operation is not job.operation:
                ahead += min(share.queue.work_of(long=long), each * self._weights[operation])
        others = (self._queues(model) for model in self._models.waiting if model is not job.model)
        return ahead + sum(min(sum(queue.work_of(long=long) for queue in queues), ahead) for queues in others)

    def next_batch(self, rule: Rule, size_bytes: int, begins_in: float = 0.0) -> list[AnyJob]:
        """Take the batch whose turn it is; empty when nothing waits that may be taken.

        Args:
            rule: says how many jobs of a bucket may be taken; where it says none, the next in turn comes first.
            size_bytes: most input bytes of a batch; a job larger than that is taken alone.
            begins_in: seconds until the device can begin with it.
        """
        company = time.monotonic() < self._company_until
        while (found := self._next_turn(rule)) is not None:
            model, operation, bucket, most = found
            operations = self._models.queue_of(model)
            self._models.begin(model)
            operations.begin(operation)
            queue = operations.queue_of(operation)
            depth, held, cost = queue.depth, queue.size_bytes, queue.cost
            batch = queue.take(bucket, most, size_bytes, begins_in, company=company)
            self._count(queue.depth - depth, queue.size_bytes - held, queue.cost - cost)
            self._leave_if_empty(model, operation)
            if batch:  # or all of them were dropped, and others may wait behind them
                return batch
        return []

    def seconds_each(self, job: AnyJob) -> float | None:
        """Seconds that a job takes at least; None if that isn't known."""
        queue = self._known(job)
        return None if queue is None else queue.times.seconds_each(job.bucket)

    def expect(self, job: AnyJob) -> float:
        """Seconds that the batch is expected to take in which a job will be that arrives now; zero if unknown."""
        queue = self._known(job)
        return 0.0 if queue is None else queue.expect(job)

    def seconds_of(self, batch: Sequence[AnyJob]) -> tuple[float | None, float]:
        """Seconds that a job of a batch takes at least, None if unknown, and that all together are expected to take.

        The latter are zero if nothing is known.
        """
        queue = self._models.queue_of(batch[0].model).queue_of(batch[0].operation)
        return queue.times.seconds_each(batch[0].bucket), queue.seconds_of(batch)

    def seconds_per_unit(self, model: LoadedModel, operation: Operation) -> float | None:
        """Seconds of a unit of work of one model and operation; None if that isn't known."""
        operations = self._models.find(model)
        queue = None if operations is None else operations.find(operation)
        return None if queue is None else queue.times.seconds_per_unit

    def seconds_of_rest(self, job: AnyJob) -> float:
        """Seconds that later parts of a job's request are expected to take; zero if unknown."""
        return job.rest * (self.seconds_per_unit(job.model, job.operation) or 0.0) if job.rest else 0.0

    def charge(self, batch: Sequence[AnyJob], seconds: float, computed: int) -> None:
        """Count the device's time on a batch that was taken against its model, operation and accounts.

        Args:
            batch: all that was taken.
            seconds: of the device.
            computed: jobs that the time says something of; none where they failed.
        """
        job = batch[0]
        queue = self._models.charge(job.model, seconds).charge(job.operation, seconds / self._weights[job.operation])
        queue.ended(batch, seconds)
        if computed:
            queue.times.note(job.bucket, seconds, computed, sum(each.units for each in batch))

    def _count(self, jobs: int, size_bytes: int, cost: float) -> None:
        """Count jobs that wait now, or no longer."""
        self.depth += jobs
        self.size_bytes += size_bytes
        self.cost = self.cost + cost if self.depth else 0.0

    def _next_turn(self, rule: Rule) -> tuple[LoadedModel, Operation, Hashable, int] | None:
        """The model, operation and bucket whose turn it is, and how many jobs to take; None if none may be taken."""
        for model, operations in self._models.in_turn():
            for operation, queue in operations.in_turn():
                bucket, most = queue.next_size(rule)
                if most:
                    return model, operation, bucket, most
        return None

    def _known(self, job: AnyJob) -> OperationQueue | None:
        operations = self._models.find(job.model)
        return None if operations is None else operations.find(job.operation)

    def _queues(self, model: LoadedModel) -> list[OperationQueue]:
        """The queues of one model in which something waits."""
        share = self._models.waiting.get(model)
        return [] if share is None else [waiting.queue for waiting in share.queue.waiting.values()]

    def _waiting(self, model: LoadedModel, operation: Operation) -> OperationQueue | None:
        share = self._models.waiting.get(model)
        return share.queue.waiting[operation].queue if share is not None and operation in share.queue.waiting else None

    def _leave_if_empty(self, model: LoadedModel, operation: Operation) -> None:
        operations = self._models.queue_of(model)
        if not operations.queue_of(operation).depth:
            operations.leave(operation)
        if not operations.waiting:
            self._models.leave(model)

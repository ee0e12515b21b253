"""Feeds the device: admits requests, forms batches when the device is free, hands results back."""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TypeVar, cast

from innerloop_server.engine.thread import EngineThread
from innerloop_server.errors import OverloadedError
from innerloop_server.observability.metrics import Metrics
from innerloop_server.scheduling.batch import BatchOutcome, run_batch
from innerloop_server.scheduling.job import AnyJob, Computed, Job
from innerloop_server.scheduling.queue import BatchLimits, FairQueue

R = TypeVar("R")

# One batch runs, another waits behind it: more would only age in the engine's queue.
HAND_OVER = 2
SHORTEST_RETRY, LONGEST_RETRY = 0.1, 30.0


@dataclass(frozen=True)
class QueueLimits:
    """How much of one model may wait.

    Attributes:
        requests: most waiting requests.
        size_bytes: most input bytes of waiting requests.
    """

    requests: int
    size_bytes: int


class Scheduler:
    """Batches continuously: a free device takes what waits, at once, however little it is.

    While a batch runs, requests gather. A batch that can't grow any more is handed over before the running one ends,
    so that a busy device finds the next one ready. Everything here runs on the event loop: there are no locks.
    """

    def __init__(
        self, engine: EngineThread, batch_limits: BatchLimits, queue_limits: QueueLimits, metrics: Metrics
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._engine = engine
        self._limits = queue_limits
        self._metrics = metrics
        self._queue = FairQueue(batch_limits)
        self._handed_over = 0
        self._scheduled = False
        self._seconds_per_job = 0.01

    async def run(self, job: Job[R]) -> Computed[R]:
        """Compute a job when its turn comes. Cancelling drops it unless it is being computed already.

        Raises:
            OverloadedError: too much waits already.
            DeadlinePassedError: its deadline passed while it waited.
        """
        waiting = cast("AnyJob", job)
        self._admit(waiting)
        try:
            return await job.future
        except asyncio.CancelledError:
            self._queue.discard(waiting)
            raise
        finally:
            # Also when it was dropped from the queue, which may have happened without a batch to report.
            self._report_depth(waiting)

    def _admit(self, job: AnyJob) -> None:
        requests, size_bytes = self._queue.load(job.model)
        too_large = requests > 0 and size_bytes + job.size_bytes > self._limits.size_bytes
        if requests >= self._limits.requests or too_large:
            wait = (requests + 1) * self._seconds_per_job
            raise OverloadedError(retry_after=min(max(wait, SHORTEST_RETRY), LONGEST_RETRY))
        self._queue.add(job)
        self._report_depth(job)
        if not self._scheduled:
            # One turn of the event loop later, so that requests which arrived together are computed together.
            self._scheduled = True
            self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._scheduled = False
        while self._handed_over < HAND_OVER:
            batch = self._queue.next_batch(only_full=self._handed_over > 0)
            if not batch:
                return
            self._report_depth(batch[0])
            self._handed_over += 1
            self._engine.submit(partial(run_batch, batch), self._finished)

    def _finished(self, batch: BatchOutcome) -> None:
        self._handed_over -= 1
        self._dispatch()
        for outcome in batch.outcomes:
            if outcome.job.abandoned:
                continue
            if isinstance(outcome.result, Exception):
                outcome.job.future.set_exception(outcome.result)
            else:
                outcome.job.future.set_result(outcome.result)
        if batch.computed:
            self._loop.call_soon(self._report, batch)  # answers come first

    def _report(self, batch: BatchOutcome) -> None:
        job = batch.outcomes[0].job
        self._seconds_per_job += 0.1 * (batch.seconds / batch.computed - self._seconds_per_job)
        self._metrics.batch(job.operation, job.model.name, batch.computed)
        for outcome in batch.outcomes:
            if isinstance(outcome.result, Computed):
                self._metrics.phase("queue", job.model.name, outcome.result.queue_seconds)
                self._metrics.phase(job.operation, job.model.name, outcome.result.compute_seconds)

    def _report_depth(self, job: AnyJob) -> None:
        depth = self._queue.depth(job.model, job.operation)
        self._metrics.queue_depth(job.model.name, job.operation, depth)

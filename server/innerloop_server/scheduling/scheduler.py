"""Feeds the device: admits requests, forms batches when the device is free, hands results back."""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar, cast

from innerloop_server.domain.errors import OverloadedError
from innerloop_server.domain.timings import Operation
from innerloop_server.engine.lanes import Lanes
from innerloop_server.observability.metrics import Metrics
from innerloop_server.scheduling.batch import BatchOutcome, run_batch, run_batch_elsewhere
from innerloop_server.scheduling.job import AnyJob, Computed, Job, PredictJob
from innerloop_server.scheduling.queue import BatchLimits, FairQueue

R = TypeVar("R")

# One batch waits behind those that run: more would only age in the lanes' queue.
AHEAD = 1
SHORTEST_RETRY, LONGEST_RETRY = 0.1, 30.0

# Where batches run side by side:
LONGEST_BATCH = 0.1
"""Seconds after which one more request in a batch saves next to nothing, and makes whoever comes next wait."""

SHORT_BATCH = 0.01
"""Seconds of batches of which half of the lanes are enough: more of them at once are smaller, which costs more in all,
and take their time from those who answer."""


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
    """Batches continuously: a free lane takes what waits, at once, however little it is.

    While as many batches run as can, requests gather; those known to be short do while half of the lanes run such. One
    batch more is handed over before a running one ends: a full one, or, where there are lanes that make batches ready
    meanwhile, one as large as those that run of its bucket. Everything here runs on the event loop: there are no locks.

    Args:
        lanes: where batches are computed.
        side_by_side: batches that run without taking time from each other; they share what is outstanding evenly.
        batch_limits: of one batch.
        queue_limits: of one model.
        weights: shares of the device's time by operation.
        metrics: told about waits and batches.
    """

    def __init__(
        self,
        lanes: Lanes,
        side_by_side: int,
        batch_limits: BatchLimits,
        queue_limits: QueueLimits,
        weights: Mapping[Operation, float],
        metrics: Metrics,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._lanes = lanes
        self._side_by_side = side_by_side
        self._batch_limits = replace(batch_limits, seconds=LONGEST_BATCH) if side_by_side > 1 else batch_limits
        self._limits = queue_limits
        self._metrics = metrics
        self._queue = FairQueue(weights)
        self._running = 0
        self._batches = 0
        self._busy_since = 0.0  # up to which it has been counted, while there are batches
        self._short = 0  # of the batches, those that are known to be
        self._scheduled = False
        self._seconds_per_job = 0.01
        self._last_end = 0.0

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
        if isinstance(job, PredictJob):
            job.model.expect(job.state)
        self._report_depth(job)
        if not self._scheduled:
            # One turn of the event loop later, so that requests which arrived together are computed together.
            self._scheduled = True
            self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._scheduled = False
        while self._batches < self._side_by_side + AHEAD:
            ahead = self._batches >= self._side_by_side
            batch = self._next_ahead() if ahead else self._next_at_once()
            if not batch:
                return
            self._report_depth(batch[0])
            if not self._batches:
                self._busy_since = self._loop.time()
            self._batches += 1
            self._running += len(batch)
            short = (self._queue.expected(batch) or math.inf) < SHORT_BATCH
            self._short += short
            done = partial(self._finished, short=short)
            self._lanes.submit(partial(run_batch, batch), done, partial(run_batch_elsewhere, batch))

    def _next_at_once(self) -> list[AnyJob]:
        enough_short = self._side_by_side > 1 and self._short >= self._side_by_side // 2
        share = -(-(self._queue.depth + self._running) // self._side_by_side)
        limits = replace(self._batch_limits, tasks=max(min(share, self._batch_limits.tasks), 1))
        return self._queue.next_batch(limits, least_seconds=SHORT_BATCH if enough_short else 0.0)

    def _next_ahead(self) -> list[AnyJob]:
        prepares = self._lanes.count > self._side_by_side
        spread = self._side_by_side + AHEAD if prepares else 1
        return self._queue.next_batch(replace(self._batch_limits, spread=spread), full=True)

    def _finished(self, batch: BatchOutcome, *, short: bool) -> None:
        now = self._loop.time()
        self._metrics.device_busy(now - self._busy_since)
        self._busy_since = now
        self._batches -= 1
        self._short -= short
        self._running -= len(batch.outcomes)
        seconds = self._device_seconds(batch)
        succeeded = any(isinstance(outcome.result, Computed) for outcome in batch.outcomes)
        self._queue.charge([outcome.job for outcome in batch.outcomes], seconds, batch.computed if succeeded else 0)
        self._dispatch()
        for outcome in batch.outcomes:
            if outcome.job.abandoned:
                continue
            if isinstance(outcome.result, Exception):
                outcome.job.future.set_exception(outcome.result)
            else:
                outcome.job.future.set_result(outcome.result)
        if batch.computed:
            self._loop.call_soon(self._report, batch, seconds)  # answers come first

    def _device_seconds(self, batch: BatchOutcome) -> float:
        """How long the device worked on a batch: where one runs at a time, it waited for those that ended before."""
        started = max(batch.started, self._last_end) if self._side_by_side == 1 else batch.started
        self._last_end = max(batch.ended, self._last_end)
        return max(batch.ended - started, 0.0)

    def _report(self, batch: BatchOutcome, seconds: float) -> None:
        job = batch.outcomes[0].job
        self._seconds_per_job += 0.1 * (seconds / batch.computed - self._seconds_per_job)
        computed = [outcome.result for outcome in batch.outcomes if isinstance(outcome.result, Computed)]
        for operation in computed[0].seconds if computed else ():
            self._metrics.batch(operation, job.model.name, batch.computed)
        for result in computed:
            self._metrics.phase("queue", job.model.name, result.queue_seconds)
            for operation, taken in result.seconds.items():
                self._metrics.phase(operation, job.model.name, taken)

    def _report_depth(self, job: AnyJob) -> None:
        depth = self._queue.depth_of(job.model, job.operation)
        self._metrics.queue_depth(job.model.name, job.operation, depth)

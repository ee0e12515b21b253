"""Feeds the device: admits requests, has batches computed by lanes that are free, hands results back."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeVar, cast

import structlog

from innerloop_server.domain.errors import OverloadedError
from innerloop_server.domain.timings import Operation
from innerloop_server.engine.interface import LoadedModel
from innerloop_server.observability.metrics import Metrics
from innerloop_server.scheduling.admission import QueueLimits, gives_way, retry_after, too_late_by
from innerloop_server.scheduling.batch import compute
from innerloop_server.scheduling.job import AnyJob, Computed, Job, PredictJob
from innerloop_server.scheduling.lanes import Lane, Lanes
from innerloop_server.scheduling.policy import (
    COMPANY_SECONDS,
    LONG_BATCH,
    BatchLimits,
    BatchPolicy,
    queries_at_once,
)
from innerloop_server.scheduling.queue import FairQueue
from innerloop_server.scheduling.running import RunningBatches

R = TypeVar("R")

ESTIMATE_SECONDS = 0.5
"""Seconds between two estimates of the wait for the metrics."""


class Scheduler:
    """Batches continuously: each lane that is free takes the batch whose turn it is, by the rules of the policy.

    There is a feeder, an asyncio task, for every lane: it takes a batch, awaits the lane that computes it, hands the
    results back, and takes the next one, or sleeps until a request comes. All of this runs on the event loop, and
    there are no locks.

    Args:
        lanes: where batches are computed.
        side_by_side: batches that run without taking time from each other; lanes beyond these make batches ready.
        batch_limits: of one batch.
        queue_limits: of what waits.
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
        self._policy = BatchPolicy(batch_limits, side_by_side)
        self._limits = queue_limits
        self._metrics = metrics
        self._queue = FairQueue(weights, self._policy)
        self._running = RunningBatches(side_by_side, self._loop.time)
        self._others_until = -math.inf  # until when requests that are not long count as having come lately
        self._busy_since = 0.0  # up to which the device's busy time has been counted, while batches run
        self._last_end = self._next_estimate = 0.0
        self._sleeping: deque[asyncio.Future[None]] = deque()
        self._stopped = False
        self._feeders = [self._loop.create_task(self._feed()) for _ in range(lanes.count)]

    async def run(self, job: Job[R]) -> Computed[R]:
        """Compute a job when its turn comes. Cancelling drops it, or ends its batch if nobody else waits for that.

        Raises:
            OverloadedError: too much waits already.
            DeadlinePassedError: its deadline passed while it waited.
        """
        waiting = cast("AnyJob", job)
        self._admit(waiting)
        try:
            return await job.future
        except asyncio.CancelledError:
            if not self._queue.discard(waiting):
                self._running.abandon(waiting)
            raise
        finally:
            # Also when it was dropped from the queue, which may have happened without a batch to report.
            self._report_depth(waiting)

    def queries_at_once(self, model: LoadedModel) -> int:
        """How many of a request's queries make a job, so that others have their turns between them."""
        return queries_at_once(self._queue.seconds_per_unit(model, Operation.PREDICT))

    @property
    def busy(self) -> bool:
        """Whether a job that came now would have to wait."""
        return self._running.count >= self._side_by_side or self._queue.depth > 0

    def stop(self) -> None:
        """Take no more batches; those that are being computed still end, and only then are their lanes free."""
        self._stopped = True
        while self._sleeping:
            self._wake_feeder()

    def _admit(self, job: AnyJob) -> None:
        own = self._queue.expect(job)
        if 0 < own <= LONG_BATCH:
            self._others_until = job.submitted + COMPANY_SECONDS
        self._check_in_time(job, own)
        self._make_room(job, own)
        self._queue.add(job)
        if isinstance(job, PredictJob):
            job.model.prefetch(job.state)
        self._report_depth(job)
        self._wake_feeder()

    def _check_in_time(self, job: AnyJob, own: float) -> None:
        """Refuse a job that would be computed too late, given the seconds that it takes itself."""
        own += self._queue.seconds_of_rest(job)
        left = min(job.deadline.remaining, self._limits.seconds)
        if too_late_by(self._queue.cost + self._running.seconds, own, left) <= 0:
            return  # even if all that waits came first, which is known without an estimate
        wait = self._estimated_wait(job, job.cost)
        if job.deadline.at == math.inf:
            late = wait - self._limits.seconds
        else:
            late = too_late_by(wait, own, job.deadline.remaining)
        if late > 0:
            raise self._refused(job, "wait", wait, late)

    def _estimated_wait(self, job: AnyJob, own: float) -> float:
        """Seconds until a job that has just arrived will be computed; zero if a lane is free or nothing is known.

        Where there are several lanes, long batches hold up other long ones only.

        Args:
            job: that arrives.
            own: seconds that it takes itself.
        """
        if self._running.count < self._side_by_side and not self._queue.depth:
            return 0.0
        long = self._side_by_side == 1 or own > LONG_BATCH
        left, lanes = self._running.work_left(long=long)
        return (left + self._queue.work_before(job, long=long)) / lanes

    def _make_room(self, job: AnyJob, own: float) -> None:
        """Find a place for a job, which may be that of someone who has more of them, or of one that comes after it.

        Raises:
            OverloadedError: there is none.
        """
        limits, queue = self._limits, self._queue
        fits = queue.depth < limits.requests and queue.size_bytes + job.size_bytes <= limits.size_bytes
        most_waiting = job.caller.limits.waiting or limits.requests_of_account
        if fits and most_waiting is None:
            return  # among all models, and so among those of its own
        waiting = queue.waiting_of(job.model, job.account)
        if most_waiting is not None and waiting >= most_waiting:
            self._take_place(job, queue.last_of(job.model, job.account), "owner", self._estimated_wait(job, own))
        while True:
            requests, size_bytes = queue.load(job.model)
            by_bytes = requests < limits.requests
            if by_bytes and (not requests or size_bytes + job.size_bytes <= limits.size_bytes):
                return
            account, most = queue.most_waiting(job.model, by_bytes=by_bytes)
            waiting = queue.waiting_of(job.model, job.account, by_bytes=by_bytes)
            wait = self._estimated_wait(job, own)
            other = gives_way(most, waiting, job.size_bytes if by_bytes else 1)
            self._take_place(job, queue.last_of(job.model, account if other else job.account), "queue", wait)

    def _take_place(self, job: AnyJob, last: AnyJob | None, reason: str, wait: float) -> None:
        """Refuse the last job of another account, or of a job's own if that comes after it.

        Raises:
            OverloadedError: there is none, so that the job itself is refused.
        """
        if last is None or (last.account == job.account and last.place <= job.place):
            raise self._refused(job, reason, wait)
        self._queue.discard(last)
        last.future.set_exception(self._refused(last, reason, wait))

    def _refused(self, job: AnyJob, reason: str, wait: float, late: float = 0.0) -> OverloadedError:
        self._metrics.refused(job.model.name, reason)
        return OverloadedError(retry_after(wait, late))

    async def _feed(self) -> None:
        """Have one batch after another computed, until the scheduler is stopped."""
        while not self._stopped:
            lane, found = await self._lanes.take(), False
            try:
                found = await self._compute_next(lane)
            except Exception:  # a fault of ours must not leave a lane without its feeder
                structlog.get_logger().exception("a batch was not fed to its lane")
            finally:
                self._lanes.give_back(lane)
            if not found and not self._stopped:
                await self._sleep()

    async def _sleep(self) -> None:
        woken = self._loop.create_future()
        self._sleeping.append(woken)
        await woken

    def _wake_feeder(self) -> None:
        """Have one of the feeders that sleep look for a batch, one turn of the event loop later.

        Requests that arrived together are computed together, because each feeder looks once all of them wait.
        """
        if self._sleeping:
            self._sleeping.popleft().set_result(None)

    async def _compute_next(self, lane: Lane) -> bool:
        """Have the next batch computed; false if none may be taken."""
        jobs = self._next_batch()
        if not jobs:
            return False
        self._report_depth(jobs[0])
        if self._queue.depth:
            self._wake_feeder()  # there may be a batch for another lane, too
        if not self._running.count:
            self._busy_since = self._loop.time()
        batch = self._running.begin(lane, jobs, *self._queue.seconds_of(jobs))
        started = time.monotonic()
        try:
            results = await compute(lane, jobs)
        finally:
            self._running.end(batch)
        self._hand_back(jobs, results, self._device_seconds(started))
        return True

    def _next_batch(self) -> list[AnyJob]:
        """The batch that the policy's rules let be taken now, whoever's turn it is."""
        if self._stopped:
            return []
        size_bytes = self._policy.limits.size_bytes
        running = self._running
        if running.count >= self._side_by_side:
            return self._queue.next_batch(self._policy.ahead, size_bytes, running.free_at() - self._loop.time())
        outstanding = self._queue.depth + running.jobs
        long = running.long if time.monotonic() < self._others_until else 0
        at_once = partial(self._policy.at_once, outstanding=outstanding, short=running.short, long=long)
        return self._queue.next_batch(at_once, size_bytes)

    def _hand_back(self, jobs: Sequence[AnyJob], results: Sequence[Computed[Any] | Exception], seconds: float) -> None:
        """Give each job its result, and take note of how long the batch took."""
        succeeded = any(isinstance(result, Computed) for result in results)
        self._queue.charge(jobs, seconds, len(jobs) if succeeded else 0)
        for job, result in zip(jobs, results, strict=True):
            if job.abandoned:
                continue
            if isinstance(result, Exception):
                job.future.set_exception(result)
            else:
                job.future.set_result(result)
        self._loop.call_soon(self._report, jobs[0], results)  # answers come first

    def _device_seconds(self, started: float) -> float:
        """How long the device worked on a batch that ends now.

        Where one batch runs at a time, one that was made ready waited for that before it.
        """
        ended = time.monotonic()
        self._metrics.device_busy(self._loop.time() - self._busy_since)
        self._busy_since = self._loop.time()
        begun = max(started, self._last_end) if self._side_by_side == 1 else started
        self._last_end = ended
        return ended - begun

    def _report(self, job: AnyJob, results: Sequence[Computed[Any] | Exception]) -> None:
        computed = [result for result in results if isinstance(result, Computed)]
        for operation in computed[0].seconds if computed else ():
            self._metrics.batch(operation, job.model.name, len(results))
        if computed and computed[0].encoder_seconds:
            self._metrics.encoder(job.model.name, computed[0].encoder_seconds)
        for result in computed:
            self._metrics.phase("queue", job.model.name, result.queue_seconds)
            if result.encoder_seconds:
                self._metrics.phase("encoder", job.model.name, result.encoder_seconds)
            for operation, taken in result.seconds.items():
                self._metrics.phase(operation, job.model.name, taken)
        now = self._loop.time()
        if now >= self._next_estimate:
            self._next_estimate = now + ESTIMATE_SECONDS
            self._metrics.estimated_wait(self._estimated_wait(job, job.cost))

    def _report_depth(self, job: AnyJob) -> None:
        depth = self._queue.depth_of(job.model, job.operation)
        self._metrics.queue_depth(job.model.name, job.operation, depth)

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
from innerloop_server.observability.metrics import Metrics
from innerloop_server.scheduling.admission import QueueLimits, gives_way, retry_after, too_late_by
from innerloop_server.scheduling.batch import compute
from innerloop_server.scheduling.job import AnyJob, Computed, Job, PredictJob
from innerloop_server.scheduling.lanes import Lane, Lanes
from innerloop_server.scheduling.policy import BatchLimits, BatchPolicy, is_short
from innerloop_server.scheduling.queue import FairQueue

R = TypeVar("R")


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
        self._batches = self._short_batches = self._jobs = 0  # that run
        self._busy_since = 0.0  # up to which the device's busy time has been counted, while batches run
        self._last_end = 0.0
        self._running: list[tuple[float, float]] = []  # when batches that run will end, and the seconds that they take
        self._sleeping: deque[asyncio.Future[None]] = deque()
        self._stopped = False
        self._feeders = [self._loop.create_task(self._feed()) for _ in range(lanes.count)]

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

    def stop(self) -> None:
        """Take no more batches; those that are being computed still end, and only then are their lanes free."""
        self._stopped = True
        while self._sleeping:
            self._wake_feeder()

    def _admit(self, job: AnyJob) -> None:
        self._check_in_time(job)
        self._make_room(job)
        self._queue.add(job)
        if isinstance(job, PredictJob):
            job.model.prefetch(job.state)
        self._report_depth(job)
        self._wake_feeder()

    def _check_in_time(self, job: AnyJob) -> None:
        """Refuse a job that would wait for too long."""
        wait = self._estimated_wait(job)
        if not wait:
            return
        left = min(job.deadline.remaining, self._limits.seconds if job.deadline.at == math.inf else math.inf)
        late = too_late_by(wait, self._queue.seconds_with(job), left)
        if late > 0:
            raise self._refused(job, "wait", wait, late)

    def _estimated_wait(self, job: AnyJob) -> float:
        """Seconds until a job that has just arrived will be computed; zero if a lane is free or nothing is known."""
        if self._batches < self._side_by_side and not self._queue.depth:
            return 0.0
        now = self._loop.time()
        running = sum(min(max(end - now, 0.0), seconds) for end, seconds in self._running)
        return (running + self._queue.work_before(job)) / self._side_by_side

    def _free_at(self) -> float:
        """When the device can begin with another batch, by the usual times of those that run."""
        ends = sorted(end for end, _ in self._running)
        first = len(ends) - self._side_by_side
        return max(self._loop.time(), ends[first]) if first >= 0 else self._loop.time()

    def _make_room(self, job: AnyJob) -> None:
        """Find a place for a job, which may be that of someone who has more of them.

        Raises:
            OverloadedError: there is none.
        """
        limits, queue = self._limits, self._queue
        own = queue.waiting_of(job.model, job.account)
        if limits.requests_of_account is not None and own >= limits.requests_of_account:
            raise self._refused(job, "owner", self._estimated_wait(job))
        while True:
            requests, size_bytes = queue.load(job.model)
            by_bytes = requests < limits.requests
            if by_bytes and (not requests or size_bytes + job.size_bytes <= limits.size_bytes):
                return
            account, most = queue.most_waiting(job.model, by_bytes=by_bytes)
            own = queue.waiting_of(job.model, job.account, by_bytes=by_bytes)
            if not gives_way(most, own, job.size_bytes if by_bytes else 1):
                raise self._refused(job, "queue", self._estimated_wait(job))
            other = queue.newest_of(job.model, account)
            queue.discard(other)
            other.future.set_exception(self._refused(other, "queue", self._estimated_wait(other)))

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
        if not self._batches:
            self._busy_since = self._loop.time()
        short = is_short(self._queue.seconds_each(jobs[0]), len(jobs))
        self._batches += 1
        self._short_batches += short
        self._jobs += len(jobs)
        expected = self._queue.batch_seconds(jobs[0], len(jobs)) or 0.0
        running = (self._free_at() + expected, expected)
        self._running.append(running)
        started = time.monotonic()
        results = await compute(lane, jobs)
        self._running.remove(running)
        self._batches -= 1
        self._short_batches -= short
        self._jobs -= len(jobs)
        self._hand_back(jobs, results, self._device_seconds(started))
        return True

    def _next_batch(self) -> list[AnyJob]:
        """The batch that the policy's rules let be taken now, whoever's turn it is."""
        if self._stopped:
            return []
        size_bytes = self._policy.limits.size_bytes
        if self._batches >= self._side_by_side:
            return self._queue.next_batch(self._policy.ahead, size_bytes, self._free_at() - self._loop.time())
        outstanding = self._queue.depth + self._jobs
        at_once = partial(self._policy.at_once, outstanding=outstanding, short=self._short_batches)
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

        self._metrics.estimated_wait(self._estimated_wait(job))

    def _report_depth(self, job: AnyJob) -> None:
        depth = self._queue.depth_of(job.model, job.operation)
        self._metrics.queue_depth(job.model.name, job.operation, depth)

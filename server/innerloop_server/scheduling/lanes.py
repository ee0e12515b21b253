"""Lanes: where batches are computed, so that the event loop never waits for a device.

A lane computes one batch at a time. Each has a thread; on a CPU with several cores it also has a worker process, since
Python runs one thread at a time and several that compute side by side slow each other and every answer down.
`Lane.compute` holds the one rule by which a batch goes to the thread or to the worker.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

import structlog

from innerloop_server.engine.interface import (
    AbandonedError,
    Batch,
    BatchResult,
    LoadedModel,
    MemoryFullError,
    Worker,
    WorkerError,
)

T = TypeVar("T")

QUIET_SECONDS = 0.2
"""Seconds without two batches side by side after which a batch counts as running alone."""

MOST_BYTES_ON_LOOP = 2**20
"""Most bytes of a batch that the event loop itself copies to a worker and back; this takes a millisecond at most."""

WORKER_START_SECONDS = 30.0
"""Most seconds that a worker may take to start before its lane goes on without it."""

MOST_FAILED_STARTS = 3
"""Number of workers in a row that end before they can compute after which a lane goes on without one."""

LOOK_SECONDS = 2.0
"""Seconds between two looks at the workers."""

SILENT_LOOKS = 5
"""Number of looks in a row without a sign of life after which a worker is given up. The event loop counts them, so that
no worker is given up because this process itself was stopped for a while."""

NEEDLESS_LOOKS = 15
"""Number of looks after which a worker is given up that goes on with a batch that nobody waits for, since it may hang:
half a minute."""


class Lanes:
    """All lanes of the device.

    Args:
        count: how many.
        start_worker: starts a lane's worker process; returns None where there is to be none.

    Attributes:
        count: how many.
    """

    def __init__(self, count: int, start_worker: Callable[[], Worker | None] = lambda: None) -> None:
        self.count = count
        side_by_side = SideBySide()
        self._lanes = [Lane(number, side_by_side, start_worker) for number in range(count)]
        self._free = set(range(count))
        self._waiting: deque[asyncio.Future[Lane]] = deque()
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the worker processes and wait until they can compute."""
        await asyncio.gather(*(lane.start_worker() for lane in self._lanes))
        await asyncio.gather(*(lane.wait_for_worker(WORKER_START_SECONDS) for lane in self._lanes))
        self._watching = asyncio.create_task(self._watch())

    async def take(self) -> "Lane":
        """A lane that is free, or the next one that gets free; it must be given back.

        The free lane of the lowest number comes first: it has most likely computed something a moment ago.
        """
        if self._free:
            number = min(self._free)
            self._free.remove(number)
            return self._lanes[number]
        turn: asyncio.Future[Lane] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(turn.result())
            raise

    def give_back(self, lane: "Lane") -> None:
        """Let others have a lane."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(lane)
                return
        self._free.add(lane.number)

    async def call(self, function: Callable[[], T]) -> T:
        """Call a function on the thread of a lane; returns what it returns, raises what it raises."""
        lane = await self.take()
        try:
            return await lane.call(function)
        finally:
            self.give_back(lane)

    async def stop(self, seconds: float) -> bool:
        """End threads and workers once all lanes are free; false if that takes longer than `seconds`."""
        if self._watching is not None:
            self._watching.cancel()
        give_up = time.monotonic() + seconds
        taken: list[Lane] = []
        try:
            async with asyncio.timeout(seconds):
                while len(taken) < self.count:
                    taken.append(await self.take())
        except TimeoutError:
            return False
        finally:
            for lane in taken:
                self.give_back(lane)
        ended = [lane.stop(max(give_up - time.monotonic(), 0)) for lane in taken]
        return all(ended)

    async def _watch(self) -> None:
        """Give up workers that are frozen, for ever: their lanes start others."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for lane in self._lanes:
                lane.look()


class Lane:
    """Computes one batch at a time, on its thread or by its worker.

    Args:
        number: of this lane, from zero.
        side_by_side: counts the batches of all lanes.
        start_worker: as in Lanes.
    """

    def __init__(self, number: int, side_by_side: "SideBySide", start_worker: Callable[[], Worker | None]) -> None:
        self.number = number
        self._side_by_side = side_by_side
        self._start_worker = start_worker
        self._thread = LaneThread(f"lane{number}")
        self._worker: LaneWorker | None = None
        self._failed_starts = 0  # in a row

    async def compute(self, model: LoadedModel, batch: Batch) -> BatchResult:
        """Compute a batch.

        The rule: a batch that is alone is computed by the thread, on as many cores as it gains from and without a hop
        to another process. One of several goes to the worker, if the lane has one that is ready. What the worker fails
        to compute, the thread computes.
        """
        with self._side_by_side.counted() as alone:
            worker = self._worker
            if not alone and worker is not None and worker.ready and model.computed_by_workers:
                try:
                    return await worker.compute(model, batch)
                except (MemoryFullError, AbandonedError):
                    raise
                except WorkerError as error:
                    structlog.get_logger().warning("batch not computed by a worker", reason=str(error))
                except Exception as error:
                    structlog.get_logger().error("batch not computed by a worker", exc_info=error)
            if worker is not None and worker.ended:
                await self._replace(worker)
            return await self._thread.call(partial(model.compute, batch, alone=alone))

    def abandon(self) -> None:
        """Hear that nobody waits for the batch any more that is computed; a thread looks for itself."""
        if self._worker is not None:
            self._worker.abandon()

    def look(self) -> None:
        """Look whether the worker gives signs of life; one that gives none for long ends."""
        if self._worker is not None:
            self._worker.look()

    async def call(self, function: Callable[[], T]) -> T:
        """Call a function on the thread."""
        with self._side_by_side.counted():
            return await self._thread.call(function)

    async def start_worker(self) -> None:
        """Give the lane a worker process, if it is to have one and the system has room for it."""
        try:
            worker = await self._thread.call(self._start_worker)
        except OSError as error:
            structlog.get_logger().warning("worker not started", reason=str(error))
        else:
            self._worker = None if worker is None else LaneWorker(worker, self._thread)

    async def wait_for_worker(self, seconds: float) -> None:
        """Wait until the worker can compute, for `seconds` at most."""
        if self._worker is not None:
            await self._worker.wait_until_ready(seconds)

    def stop(self, seconds: float) -> bool:
        """End the worker and the thread; false if the thread takes longer than `seconds`."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None
        return self._thread.stop(seconds)

    async def _replace(self, ended: "LaneWorker") -> None:
        """Start another worker in place of one that has ended; none where several in a row never could compute."""
        ended.stop()
        self._worker = None
        self._failed_starts = 0 if ended.ready else self._failed_starts + 1
        if self._failed_starts < MOST_FAILED_STARTS:
            await self.start_worker()
        else:
            structlog.get_logger().warning("workers end before they are ready: this lane computes without")


class SideBySide:
    """Counts what lanes compute at a time."""

    def __init__(self) -> None:
        self._running = 0
        self._last = -math.inf  # when several ran at a time, on the monotonic clock

    @contextmanager
    def counted(self) -> Iterator[bool]:
        """Count what is done inside; whether it is alone: nothing runs beside it, nor did several a moment ago."""
        self._running += 1
        self._note_overlap()
        try:
            yield time.monotonic() - self._last > QUIET_SECONDS
        finally:
            self._note_overlap()
            self._running -= 1

    def _note_overlap(self) -> None:
        if self._running > 1:
            self._last = time.monotonic()


class LaneThread:
    """A thread that calls functions, one after another."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._calls: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = SimpleQueue()
        # A daemon, so that a computation that never ends can't keep a stopped server alive.
        self._thread = Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    async def call(self, function: Callable[[], T]) -> T:
        """Call a function there; returns what it returns, raises what it raises."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._calls.put((function, future))
        try:
            return await future
        finally:
            # The traceback of an error refers to this frame, and the future to the error: what a request has brought
            # would be freed by garbage collection only.
            del function, future

    def stop(self, seconds: float) -> bool:
        """End the thread; false if that takes longer than `seconds`."""
        self._calls.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            function, future = call
            try:
                done = partial(_set_result, future, function())
            except BaseException as error:
                done = partial(_set_exception, future, error)
            self._loop.call_soon_threadsafe(done)
            # They hold what a request has brought: that is freed now, and not when the next call comes.
            del call, function, future, done


class LaneWorker:
    """A lane's worker process, and how the event loop waits for it.

    Args:
        worker: the process.
        thread: of the lane.

    Attributes:
        ready: whether the process has started.
        ended: whether it is no more.
    """

    def __init__(self, worker: Worker, thread: LaneThread) -> None:
        self.ready = self.ended = False
        self._worker = worker
        self._thread = thread
        self._loop = asyncio.get_running_loop()
        self._beats = self._silent = self._needless = 0
        self._abandoned = False
        self._reply: asyncio.Future[Any] = self._loop.create_future()
        self._loop.add_reader(worker.fileno(), self._receive)

    async def wait_until_ready(self, seconds: float) -> None:
        """Wait until the process has started or ended, for `seconds` at most."""
        await asyncio.wait([self._reply], timeout=seconds)

    async def compute(self, model: LoadedModel, batch: Batch) -> BatchResult:
        """Have the process compute a batch.

        The event loop copies the batch to the process and its results back, since handing that to the thread would
        take longer; large batches are copied by the thread, so that they hold nobody up.

        Raises:
            WorkerError: the process can't compute it.
        """
        if self.ended:
            raise WorkerError("the process has ended")
        self._reply = self._loop.create_future()
        self._abandoned = False
        worker = self._worker
        if model.bytes_to_copy(batch, worker) <= MOST_BYTES_ON_LOOP:
            model.send(batch, worker)
            return model.take(batch, await self._reply, worker)
        await self._thread.call(partial(model.send, batch, worker))
        reply = await self._reply
        return await self._thread.call(partial(model.take, batch, reply, worker))

    def abandon(self) -> None:
        """Tell the process that nobody waits for its batch any more."""
        self._abandoned = True
        self._worker.abandon()

    def look(self) -> None:
        """Give the process up if it is frozen, or does not stop to compute what nobody waits for."""
        if self.ended or not self.ready:
            return
        beats = self._worker.beats()
        self._silent = 0 if beats != self._beats else self._silent + 1
        self._beats = beats
        self._needless = self._needless + 1 if self._abandoned and not self._reply.done() else 0
        if self._silent >= SILENT_LOOKS or self._needless >= NEEDLESS_LOOKS:
            structlog.get_logger().error("a worker does not answer: it is replaced")
            self._give_up(WorkerError("the process does not answer"))

    def stop(self) -> None:
        """End the process; nothing can be computed afterwards."""
        self._loop.remove_reader(self._worker.fileno())
        self._worker.stop()
        # The traceback of an error refers to this worker, and the reply to the error: the memory that was shared with
        # the process would be freed by garbage collection only.
        del self._reply

    def _receive(self) -> None:
        try:
            reply = self._worker.receive()
        except Exception as error:  # what can't be understood must not leave a lane waiting for ever either
            self._give_up(error)
        else:
            self.ready = True
            _set_result(self._reply, reply)

    def _give_up(self, error: Exception) -> None:
        """Expect nothing of the process any more."""
        self.ended = True
        self._loop.remove_reader(self._worker.fileno())
        _set_exception(self._reply, error)


def _set_result(future: "asyncio.Future[Any]", result: object) -> None:
    if not future.done():
        future.set_result(result)


def _set_exception(future: "asyncio.Future[Any]", error: BaseException) -> None:
    if not future.done():
        if isinstance(error, StopIteration):  # no future takes one: it would end the coroutine that awaits it
            error = RuntimeError(f"StopIteration: {error}")
        future.set_exception(error)
        future.exception()  # the caller may have stopped waiting for it

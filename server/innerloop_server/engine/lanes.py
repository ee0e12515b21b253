"""Where all computing happens, so that the event loop never waits for a device: threads, and processes behind them."""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from threading import Thread
from time import monotonic
from typing import Any, NamedTuple, TypeVar

import structlog

from innerloop_server.engine.interface import RemoteError
from innerloop_server.engine.waiting import Waiting, go_on

T = TypeVar("T")


class Work(NamedTuple):
    """A piece of work.

    Attributes:
        run: does it on a thread, and must not raise.
        done: is called on the event loop with its result.
        elsewhere: a coroutine that has another process do it, for a lane; None where the lane's thread shall.
    """

    run: Callable[[], Any]
    done: Callable[[Any], object]
    elsewhere: Callable[[int], Waiting[Any] | None]


class Lanes:
    """Runs pieces of work side by side, in the order they come, for the event loop that made it.

    Work goes to the first lane that is free, which has most likely done such work a moment ago. Where another process
    does it, the event loop waits for that itself: a thread that did would wait for the interpreter, too, which is busy
    with requests, each time that it has something to do.

    Args:
        count: threads.
        enter: is called on each of them, with its number, before it works.

    Attributes:
        count: threads.
    """

    def __init__(self, count: int, enter: Callable[[int], None] = lambda _: None) -> None:
        self.count = count
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Work] = deque()
        self._free = set(range(count))
        self._beginning = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._queues: list[SimpleQueue[Work | None]] = [SimpleQueue() for _ in range(count)]
        # Daemons, so that a computation that never ends can't keep a stopped server alive.
        self._threads = [
            Thread(target=self._serve, args=(lane, enter), name=f"lane{lane}", daemon=True) for lane in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(
        self,
        run: Callable[[], T],
        done: Callable[[T], object],
        elsewhere: Callable[[int], Waiting[T] | None] = lambda _: None,
    ) -> None:
        """Queue work; arguments as those of `Work`."""
        self._waiting.append(Work(run, done, elsewhere))
        self._begin()

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` and return its result or raise its exception."""
        future: asyncio.Future[T] = self._loop.create_future()

        def settle(outcome: tuple[T | None, BaseException | None]) -> None:
            result, error = outcome
            if future.cancelled():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]

        self.submit(partial(_attempt, work), settle)
        return await future

    async def stop(self, seconds: float) -> bool:
        """End the threads after what is queued; false if that takes longer than `seconds`."""
        give_up = monotonic() + seconds
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except TimeoutError:
            return False
        for queue in self._queues:
            queue.put(None)
        for thread in self._threads:
            thread.join(max(give_up - monotonic(), 0))
        return not any(thread.is_alive() for thread in self._threads)

    def _begin(self) -> None:
        """Let work that waits begin on lanes that are free."""
        if self._beginning:  # some ended at its first step: the loop below goes on with what waits
            return
        self._beginning = True
        try:
            while self._free and self._waiting:
                lane, work = min(self._free), self._waiting.popleft()
                self._free.remove(lane)
                self._idle.clear()
                elsewhere = work.elsewhere(lane)
                if elsewhere is None:
                    self._queues[lane].put(work)
                else:
                    go_on(self._loop, elsewhere, partial(self._ended, lane, work), partial(self._failed, lane, work))
        finally:
            self._beginning = False

    def _failed(self, lane: int, work: Work, error: Exception) -> None:
        """Another process has not done its work: the lane's thread shall."""
        if not isinstance(error, RemoteError):
            structlog.get_logger().error("work for another process failed", exc_info=error)
        self._queues[lane].put(work)

    def _ended(self, lane: int, work: Work, result: Any) -> None:
        self._free.add(lane)
        self._begin()
        try:
            work.done(result)
        finally:
            if len(self._free) == self.count:
                self._idle.set()

    def _serve(self, lane: int, enter: Callable[[int], None]) -> None:
        enter(lane)
        queue = self._queues[lane]
        while (work := queue.get()) is not None:
            self._loop.call_soon_threadsafe(self._ended, lane, work, work.run())
            # A piece of work holds what a request has brought: it goes at once, and not when the next one comes.
            del work


def _attempt(work: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    try:
        return work(), None
    except Exception as error:
        return None, error

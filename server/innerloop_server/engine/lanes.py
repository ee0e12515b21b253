"""The threads that all computing happens on, so that the event loop never waits for a device."""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from threading import Lock, Thread
from time import monotonic
from typing import TypeVar

T = TypeVar("T")

Work = Callable[[], None]


class Lanes:
    """Runs pieces of work side by side, in the order they come, and reports back to the event loop that made it.

    Work goes to the first lane that is free: lanes may differ, and the first one computes a lone piece best.

    Args:
        count: threads.
        enter: is called on each of them, with its number, before it works.

    Attributes:
        count: threads.
    """

    def __init__(self, count: int, enter: Callable[[int], None] = lambda _: None) -> None:
        self.count = count
        self._loop = asyncio.get_running_loop()
        self._lock = Lock()
        self._waiting: deque[Work] = deque()
        self._free = set(range(count))
        self._work: list[SimpleQueue[Work | None]] = [SimpleQueue() for _ in range(count)]
        # Daemons, so that a computation that never ends can't keep a stopped server alive.
        self._threads = [
            Thread(target=self._run, args=(lane, enter), name=f"lane{lane}", daemon=True) for lane in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Callable[[], T], done: Callable[[T], object]) -> None:
        """Queue `work`, which must not raise; `done` is called on the event loop with its result."""

        def run() -> None:
            self._loop.call_soon_threadsafe(done, work())

        with self._lock:
            if not self._free:
                self._waiting.append(run)
                return
            lane = min(self._free)
            self._free.remove(lane)
        self._work[lane].put(run)

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

    def stop(self, seconds: float) -> bool:
        """End the threads after what is queued; false if that takes longer than `seconds`."""
        give_up = monotonic() + seconds
        for work in self._work:
            work.put(None)
        for thread in self._threads:
            thread.join(max(give_up - monotonic(), 0))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self, lane: int, enter: Callable[[int], None]) -> None:
        enter(lane)
        while (work := self._work[lane].get()) is not None:
            while work is not None:
                work()
                # A piece of work holds what a request has brought: it goes at once, and not when the next one comes.
                work = self._next(lane)

    def _next(self, lane: int) -> Work | None:
        """Work that waits; none leaves the lane free."""
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._free.add(lane)
            return None


def _attempt(work: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    try:
        return work(), None
    except Exception as error:
        return None, error

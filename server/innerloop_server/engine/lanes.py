"""The threads that all computing happens on, so that the event loop never waits for a device."""

import asyncio
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from time import monotonic
from typing import TypeVar

T = TypeVar("T")


class Lanes:
    """Runs pieces of work side by side, in the order they come, and reports back to the event loop that made it.

    Attributes:
        count: threads.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._loop = asyncio.get_running_loop()
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        # Daemons, so that a computation that never ends can't keep a stopped server alive.
        self._threads = [Thread(target=self._run, name=f"lane{lane}", daemon=True) for lane in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Callable[[], T], done: Callable[[T], object]) -> None:
        """Queue `work`, which must not raise; `done` is called on the event loop with its result."""

        def run() -> None:
            self._loop.call_soon_threadsafe(done, work())

        self._work.put(run)

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

        self.submit(lambda: _attempt(work), settle)
        return await future

    def stop(self, seconds: float) -> bool:
        """End the threads after what is queued; false if that takes longer than `seconds`."""
        give_up = monotonic() + seconds
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join(max(give_up - monotonic(), 0))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        while (run := self._work.get()) is not None:
            run()
            del run  # what it refers to, such as a request's arrays, must not wait for the next work to be freed


def _attempt(work: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    try:
        return work(), None
    except Exception as error:
        return None, error

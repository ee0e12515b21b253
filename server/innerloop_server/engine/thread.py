"""The thread that all computing happens on, so that the event loop never waits for a device."""

import asyncio
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


class EngineThread:
    """Runs work one piece after another and reports back to the event loop that made it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        # A daemon, so that a computation that never ends can't keep a stopped server alive.
        self._thread = Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

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
        """End the thread after what is queued; false if that takes longer than `seconds`."""
        self._work.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (run := self._work.get()) is not None:
            run()
            del run  # what it refers to, such as a request's arrays, must not wait for the next work to be freed


def _attempt(work: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    try:
        return work(), None
    except Exception as error:
        return None, error

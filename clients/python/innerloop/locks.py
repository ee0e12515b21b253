"""Taking a lock within a deadline."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from innerloop.errors import DeadlineExceededError
from innerloop.retry import Deadline

_MESSAGE = "timed out while another call prepared what this one needs"


@contextmanager
def acquired(lock: threading.Lock, deadline: Deadline) -> Iterator[None]:
    """Hold `lock`.

    Raises:
        DeadlineExceededError: it did not become free in time.
    """
    if not lock.acquire(timeout=deadline.remaining()):
        raise DeadlineExceededError(_MESSAGE)
    try:
        yield
    finally:
        lock.release()


@asynccontextmanager
async def acquired_async(lock: asyncio.Lock, deadline: Deadline) -> AsyncIterator[None]:
    """The same for a lock of the running event loop."""
    try:
        async with asyncio.timeout(deadline.remaining()):
            await lock.acquire()
    except TimeoutError:
        raise DeadlineExceededError(_MESSAGE) from None
    try:
        yield
    finally:
        lock.release()

"""Taking a lock within a deadline, in threads and in event loops alike."""

import asyncio
import threading

from innerloop.errors import DeadlineExceededError
from innerloop.retry import Deadline

_MESSAGE = "timed out while another call prepared what this one needs"
_LOOK_AGAIN_SECONDS = 0.01
"""How often an event loop looks whether a lock is free. Locks of asyncio would belong to one event loop."""


def acquire(lock: threading.Lock, deadline: Deadline) -> None:
    """Take `lock`.

    Raises:
        DeadlineExceededError: it did not become free in time.
    """
    if not lock.acquire(timeout=deadline.remaining()):
        raise DeadlineExceededError(_MESSAGE)


async def acquire_async(lock: threading.Lock, deadline: Deadline) -> None:
    """The same without holding up the running event loop."""
    while not lock.acquire(blocking=False):
        if not deadline.remaining():
            raise DeadlineExceededError(_MESSAGE)
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)

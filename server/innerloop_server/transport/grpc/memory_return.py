"""Gives memory back to the operating system after large requests."""

import asyncio

from innerloop_learner.host_memory import give_back_freed_memory, resident_bytes

CHECK_SECONDS = 5.0
"""Seconds between two looks at the memory of the process."""

GROWN_BYTES = 128 * 2**20
"""Growth of the memory since it was last given back from which on that is worth some milliseconds."""


async def give_memory_back() -> None:
    """Look at this process's memory for ever, and give back what was freed whenever it has grown.

    Freed memory is kept for the next batch (`keep_freed_memory`), and what lies between pieces that are in use is kept
    in any case; a few large requests would leave the process large for good.
    """
    least = _resident()
    while True:
        await asyncio.sleep(CHECK_SECONDS)
        if _resident() - least > GROWN_BYTES:
            await asyncio.to_thread(give_back_freed_memory)
            least = _resident()
        least = min(least, _resident())


def _resident() -> int:
    return resident_bytes() or 0

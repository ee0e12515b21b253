"""Threads that decode large requests, so that the event loop goes on."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from innerloop_server.domain.errors import OverloadedError

T = TypeVar("T")

RETRY_SECONDS = 1.0


class Decoders:
    """A few threads for requests whose decoding would hold up all others.

    Args:
        threads: how many decode at the same time.
        most: how many requests may wait or be decoded at the same time, since each takes memory.
    """

    def __init__(self, threads: int = 2, most: int = 128) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decoder")
        self._most = most
        self._under_way = 0

    async def run(self, decode: Callable[[], T], *, heavy: bool) -> T:
        """The result of `decode`, called in a thread if it is heavy.

        Raises:
            OverloadedError: too many heavy ones are under way.
        """
        if not heavy:
            return decode()
        if self._under_way >= self._most:
            raise OverloadedError(RETRY_SECONDS)
        self._under_way += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, decode)
        finally:
            self._under_way -= 1

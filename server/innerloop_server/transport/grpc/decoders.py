"""Threads that decode large requests, so that the event loop goes on."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from weakref import WeakValueDictionary

from innerloop_server.domain.errors import OverloadedError
from innerloop_server.transport.codec.turns import Turns, in_turn

T = TypeVar("T")

RETRY_SECONDS = 1.0

REQUESTS_OF_ACCOUNT = 2
"""Requests of one account that have threads at the same time; its others wait without one."""


class Decoders:
    """Threads for requests whose decoding would hold up all others. Images and recordings are decoded in turns.

    Args:
        places: how many images or recordings are decoded at the same time.
        most: how many requests may wait or be decoded at the same time, since each takes memory; a quarter of them of
            one account.
    """

    def __init__(self, places: int = 2, most: int = 128) -> None:
        self._turns = Turns(places)
        self._pool = ThreadPoolExecutor(most // 2, thread_name_prefix="decoder")
        self._most = most
        self._under_way: Counter[str] = Counter()
        self._places: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def run(self, decode: Callable[[], T], *, heavy: bool, account: str) -> T:
        """The result of `decode`, called in a thread if it is heavy.

        Args:
            decode: is called once.
            heavy: whether it takes long.
            account: whose request it is.

        Raises:
            OverloadedError: too many heavy ones are under way.
        """
        if not heavy:
            return decode()
        if self._under_way.total() >= self._most:
            raise OverloadedError(RETRY_SECONDS)
        if self._under_way[account] >= self._most // 4:
            raise OverloadedError(RETRY_SECONDS, "too many of your large requests are being read")
        self._under_way[account] += 1
        try:
            places = self._places.setdefault(account, asyncio.Semaphore(REQUESTS_OF_ACCOUNT))
            async with places:
                return await self._in_thread(decode, account)
        finally:
            self._under_way[account] -= 1
            self._under_way += Counter()  # forgets accounts that have none

    async def _in_thread(self, decode: Callable[[], T], account: str) -> T:
        gone = threading.Event()

        def work() -> T:
            with in_turn(lambda cost: self._turns.turn(account, cost, gone.is_set)):
                return decode()

        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except asyncio.CancelledError:
            gone.set()
            self._turns.look()
            raise

"""Bounds the bytes of messages under way that were read and are not answered yet."""

import asyncio


class ByteBudget:
    """So many bytes at a time; whoever wants to read more waits until some are given back.

    The size of a message is known when it has been read, so the last one may exceed the budget.

    Args:
        most: bytes.
        of: another budget that all of these bytes count against, too.
    """

    def __init__(self, most: int, of: "ByteBudget | None" = None) -> None:
        self._most = most
        self._of = of
        self._taken = 0
        self._given_back = asyncio.Event()

    async def wait_for_room(self) -> None:
        """Wait until another message may be read."""
        while self._taken >= self._most:
            self._given_back.clear()
            await self._given_back.wait()
        if self._of is not None:
            await self._of.wait_for_room()

    def count(self, size: int) -> None:
        """Count so many bytes more, or fewer where it is negative."""
        self._taken += size
        if size < 0:
            self._given_back.set()
        if self._of is not None:
            self._of.count(size)

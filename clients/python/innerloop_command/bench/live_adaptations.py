"""The live adaptations that Predict requests ask."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from innerloop.errors import DeadlineExceededError, UnavailableError
from innerloop.v1 import adaptation_pb2 as pb
from innerloop_command.bench.sender import Answer, Sender
from innerloop_command.bench.workload import Workload

T = TypeVar("T")

AT_ONCE = 16
"""Adaptations that are made or deleted at the same time."""


class LiveAdaptations:
    """A numbered set of adaptations, of which the server may drop some at any time.

    Each is made under a request id of its own that never changes, so that processes which find one dropped at the same
    time, or one after the other, share a single new one: the server answers a request id that it knows with the
    adaptation it made.

    Args:
        run: a name for the request ids, the same in all processes of a run and in no other.
        ids: of the adaptations; empty strings where they are yet to be made.
        sender: to the server.
        workload: of the run.

    Attributes:
        ids: as last heard from the server.
        remade: attempts to make one again, by gRPC status.
    """

    def __init__(self, run: str, ids: Iterable[str], sender: Sender, workload: Workload) -> None:
        self.ids = list(ids)
        self.remade: Counter[str] = Counter()
        self._run = run
        self._sender = sender
        self._workload = workload
        self._under_way: dict[int, asyncio.Task[None]] = {}

    async def make_all(self, progress: Callable[[float], None]) -> None:
        """Make all of them, telling the fraction that is done.

        Raises:
            InnerloopError: one could not be made.
        """

        async def make(slot: int) -> None:
            (await self._make(slot)).check()

        await _each(range(len(self.ids)), make, progress)

    async def remake(self, slot: int, gone: str) -> None:
        """Make one again that was dropped; if that fails, the next request that needs it finds it missing again.

        Args:
            slot: its number.
            gone: the id that the server no longer knows; another request may have replaced it already.
        """
        if self.ids[slot] != gone:
            return
        if slot not in self._under_way:
            self._under_way[slot] = asyncio.create_task(self._remake(slot))
        await self._under_way[slot]

    async def _remake(self, slot: int) -> None:
        try:
            self.remade[(await self._make(slot)).status] += 1
        finally:
            del self._under_way[slot]

    async def _make(self, slot: int) -> Answer:
        answer = await self._sender.send("Adapt", self._workload.adapt_live(slot, f"{self._run}-{slot}"))
        if answer.error is None:
            self.ids[slot] = answer.response.adaptation.id
        return answer


async def delete_adaptations(ids: Iterable[str], sender: Sender, progress: Callable[[float], None]) -> None:
    """Delete those adaptations that are still there, telling the fraction that is done.

    Raises:
        InnerloopError: the server does not answer; where it refuses to delete one, it is asked to delete the others.
    """

    async def delete(adaptation_id: str) -> None:
        request = pb.DeleteAdaptationRequest(adaptation_id=adaptation_id)
        answer = await sender.send("DeleteAdaptation", request.SerializeToString())
        if isinstance(answer.error, UnavailableError | DeadlineExceededError):
            answer.check()

    await _each(list(ids), delete, progress)


async def _each(items: Sequence[T], do: Callable[[T], Awaitable[None]], progress: Callable[[float], None]) -> None:
    """Do something with each item, some of them at a time."""
    rest = iter(items)
    done = 0

    async def work() -> None:
        nonlocal done
        for item in rest:
            await do(item)
            done += 1
            progress(done / len(items))

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))

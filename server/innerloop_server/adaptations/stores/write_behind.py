"""A store that answers before it has written: quicker, and a crash loses what it was about to write."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress

from innerloop_server.adaptations.stores.interface import AdaptationStore, StoredAdaptation, Summary, Totals
from innerloop_server.domain.errors import StoreUnavailableError, TooManyAdaptationsError

BEHIND_SECONDS = 0.5
"""Seconds between two writes; with the time that a write takes, this is what a crash loses at most."""

MOST_BYTES = 64 * 2**20
"""Bytes that may wait to be written; whoever adds more waits for the write."""


class WriteBehindStore(AdaptationStore):
    """Another store, and what it is about to be given.

    New adaptations and deletions wait for the next write. Everything else sees them, or has them written first.

    Args:
        store: the other one.
    """

    def __init__(self, store: AdaptationStore) -> None:
        self._store = store
        self.durable, self.shared = store.durable, store.shared
        self._added: dict[str, StoredAdaptation] = {}
        self._by_request: dict[tuple[str, str], str] = {}
        self._deleted: dict[str, str] = {}  # id -> owner
        self._bytes = 0
        self._writing = asyncio.Lock()
        self._writer: asyncio.Task[None] | None = None
        self._flushes: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """See AdaptationStore.open."""
        await self._store.open()
        self._writer = asyncio.create_task(self._write_on())

    async def close(self) -> None:
        """See AdaptationStore.close."""
        if self._writer is not None:
            self._writer.cancel()
        with suppress(StoreUnavailableError):
            await self._flush()
        await self._store.close()

    def admit(self) -> None:
        """See AdaptationStore.admit."""
        self._store.admit()

    def brings_back(self, adaptation_id: str) -> bool:
        """See AdaptationStore.brings_back."""
        return self._store.brings_back(adaptation_id)

    async def add(self, adaptation: StoredAdaptation, most: int | None = None) -> Summary | None:
        """See AdaptationStore.add; servers that share a store see what others have added once it is written."""
        summary = adaptation.summary
        if summary.request_id:
            made = await self.made_by(summary.owner, summary.request_id)
            if made is not None:
                if made.expires_ns > summary.created_ns:
                    return made
                await self.delete(made.id)
        if most is None:
            self._add_later(adaptation)
        else:
            async with self._writing:
                if await self._count_unwritten(summary.owner) >= most:
                    raise TooManyAdaptationsError(most)
                self._add_later(adaptation)
        if self._bytes > MOST_BYTES:
            await self._flush()
        return None

    async def count(self, owner: str) -> int:
        """See AdaptationStore.count."""
        async with self._writing:
            return await self._count_unwritten(owner)

    async def replace(self, adaptation: StoredAdaptation) -> bool:
        """See AdaptationStore.replace."""
        await self._flush()
        return await self._store.replace(adaptation)

    async def delete(self, adaptation_id: str) -> bool:
        """See AdaptationStore.delete."""
        kept = await self.look(adaptation_id)
        if kept is None or adaptation_id in self._deleted:  # by another call that looked at the same time
            return False
        self._deleted[adaptation_id] = kept.owner
        return True

    async def get(self, adaptation_id: str) -> StoredAdaptation | None:
        """See AdaptationStore.get."""
        if adaptation_id in self._deleted:
            return None
        return self._added.get(adaptation_id) or await self._store.get(adaptation_id)

    async def look(self, adaptation_id: str) -> Summary | None:
        """See AdaptationStore.look."""
        if adaptation_id in self._deleted:
            return None
        added = self._added.get(adaptation_id)
        return await self._store.look(adaptation_id) if added is None else added.summary

    async def revision(self, adaptation_id: str) -> int | None:
        """See AdaptationStore.revision."""
        kept = await self.look(adaptation_id)
        return None if kept is None else kept.revision

    async def made_by(self, owner: str, request_id: str) -> Summary | None:
        """See AdaptationStore.made_by."""
        added = self._by_request.get((owner, request_id))
        if added is not None and added not in self._deleted:
            return self._added[added].summary
        made = await self._store.made_by(owner, request_id)
        return None if made is None or made.id in self._deleted else made

    async def list(self, owner: str, model: str, before_ns: int | None, after_ns: int, limit: int) -> Sequence[Summary]:
        """See AdaptationStore.list."""
        await self._flush()
        return await self._store.list(owner, model, before_ns, after_ns, limit)

    async def scan(self, model: str, cursor: str, limit: int) -> tuple[Sequence[Summary], str]:
        """See AdaptationStore.scan."""
        await self._flush()
        return await self._store.scan(model, cursor, limit)

    async def touch(self, expiries: Mapping[str, int]) -> None:
        """See AdaptationStore.touch."""
        await self._flush()
        await self._store.touch(expiries)

    async def expire(self, now_ns: int, limit: int) -> Sequence[Summary]:
        """See AdaptationStore.expire."""
        await self._flush()
        return await self._store.expire(now_ns, limit)

    async def totals(self) -> Totals:
        """See AdaptationStore.totals."""
        return await self._store.totals()

    async def _write_on(self) -> None:
        while True:
            await asyncio.sleep(BEHIND_SECONDS)
            with suppress(StoreUnavailableError):  # the next round tries again
                await self._flush()

    async def _flush(self) -> None:
        """Write what waits. What can't be written goes on waiting, and StoreUnavailableError is raised."""
        flush = asyncio.create_task(self._write_waiting())
        self._flushes.add(flush)
        flush.add_done_callback(self._flushed)
        await asyncio.shield(flush)  # a caller that leaves must not leave half of it undone

    def _flushed(self, flush: "asyncio.Task[None]") -> None:
        self._flushes.discard(flush)
        flush.exception()  # retrieved: whoever waited may have left

    async def _write_waiting(self) -> None:
        async with self._writing:
            deleted = dict(self._deleted)
            added = [adaptation for each, adaptation in self._added.items() if each not in deleted]
            outcomes = await asyncio.gather(
                *(self._add(adaptation) for adaptation in added),
                *(self._store.delete(each) for each in deleted if each not in self._added),
                return_exceptions=True,
            )
            failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
            if failures:
                raise failures[0]
            for each in [*(adaptation.summary.id for adaptation in added), *(deleted.keys() & self._added.keys())]:
                self._written(self._added.pop(each))
            for each in deleted:
                del self._deleted[each]

    async def _add(self, adaptation: StoredAdaptation) -> None:
        """Write an adaptation that may have been written before, by an attempt that failed halfway."""
        summary = adaptation.summary
        if await self._store.look(summary.id) is None and await self._store.add(adaptation) is not None:
            # Another server has answered the same request meanwhile. Both callers were answered, so both are kept.
            await self._store.add(adaptation._replace(summary=summary._replace(request_id="")))

    def _add_later(self, adaptation: StoredAdaptation) -> None:
        summary = adaptation.summary
        if summary.request_id:
            self._by_request[summary.owner, summary.request_id] = summary.id
        self._added[summary.id] = adaptation
        self._bytes += adaptation.size_bytes

    def _written(self, adaptation: StoredAdaptation) -> None:
        self._bytes -= adaptation.size_bytes
        key = adaptation.summary.owner, adaptation.summary.request_id
        if self._by_request.get(key) == adaptation.summary.id:
            del self._by_request[key]

    async def _count_unwritten(self, owner: str) -> int:
        """`count` while nothing is written: what is written meanwhile would be counted twice, or not at all."""
        written = await self._store.count(owner)
        added = sum(adaptation.summary.owner == owner for adaptation in self._added.values())
        return written + added - list(self._deleted.values()).count(owner)

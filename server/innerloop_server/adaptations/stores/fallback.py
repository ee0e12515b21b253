"""A store that goes on in memory while another one is away."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

from innerloop_server.adaptations.stores.interface import AdaptationStore, StoredAdaptation, Summary, Totals
from innerloop_server.adaptations.stores.memory import MemoryStore
from innerloop_server.domain.errors import StoreUnavailableError, TooManyAdaptationsError


class FallbackStore(AdaptationStore):
    """Another store, and memory for what is made while that one is away: it lives no longer than the process.

    Args:
        store: the other one.
    """

    def __init__(self, store: AdaptationStore) -> None:
        self._store = store
        self._memory = MemoryStore()
        self._in_memory: set[str] = set()
        self.durable, self.shared = store.durable, store.shared

    async def open(self) -> None:
        """See AdaptationStore.open."""
        await self._store.open()

    async def close(self) -> None:
        """See AdaptationStore.close."""
        await self._store.close()

    def brings_back(self, adaptation_id: str) -> bool:
        """See AdaptationStore.brings_back."""
        return adaptation_id not in self._in_memory

    async def add(self, adaptation: StoredAdaptation, most: int | None = None) -> Summary | None:
        """See AdaptationStore.add; while the store is away, those in memory count alone."""
        try:
            self._store.admit()
            return await self._store.add(adaptation, most and most - await self._memory.count(adaptation.summary.owner))
        except TooManyAdaptationsError as full:
            raise TooManyAdaptationsError(most or 0) from full
        except StoreUnavailableError:
            made = await self._memory.add(adaptation, most)
            if made is None:
                self._in_memory.add(adaptation.summary.id)
            return made

    async def count(self, owner: str) -> int:
        """See AdaptationStore.count; while the store is away, those in memory count alone."""
        here = await self._memory.count(owner)
        with suppress(StoreUnavailableError):
            return here + await self._store.count(owner)
        return here

    async def replace(self, adaptation: StoredAdaptation) -> bool:
        """See AdaptationStore.replace."""
        return await self._of(adaptation.summary.id).replace(adaptation)

    async def delete(self, adaptation_id: str) -> bool:
        """See AdaptationStore.delete."""
        # Also what is in memory: a write that failed may have reached the store, and must not bring it back one day.
        there = await self._store.delete(adaptation_id)
        if adaptation_id in self._in_memory:
            self._in_memory.discard(adaptation_id)
            there = await self._memory.delete(adaptation_id)
        return there

    async def get(self, adaptation_id: str) -> StoredAdaptation | None:
        """See AdaptationStore.get."""
        return await self._of(adaptation_id).get(adaptation_id)

    async def look(self, adaptation_id: str) -> Summary | None:
        """See AdaptationStore.look."""
        return await self._of(adaptation_id).look(adaptation_id)

    async def revision(self, adaptation_id: str) -> int | None:
        """See AdaptationStore.revision."""
        return await self._of(adaptation_id).revision(adaptation_id)

    async def made_by(self, owner: str, request_id: str) -> Summary | None:
        """See AdaptationStore.made_by."""
        made = await self._memory.made_by(owner, request_id)
        if made is None:
            with suppress(StoreUnavailableError):
                made = await self._store.made_by(owner, request_id)
        return made

    async def list(self, owner: str, model: str, before_ns: int | None, after_ns: int, limit: int) -> Sequence[Summary]:
        """See AdaptationStore.list; raises while the store is away, rather than leave out what it keeps."""
        kept = await self._store.list(owner, model, before_ns, after_ns, limit)
        here = await self._memory.list(owner, model, before_ns, after_ns, limit)
        return sorted([*kept, *here], key=lambda summary: -summary.created_ns)[:limit]

    async def scan(self, model: str, cursor: str, limit: int) -> tuple[Sequence[Summary], str]:
        """See AdaptationStore.scan: of the store, since nothing in memory can be made again."""
        return await self._store.scan(model, cursor, limit)

    async def touch(self, expiries: Mapping[str, int]) -> None:
        """See AdaptationStore.touch."""
        await self._memory.touch(expiries)
        others = {each: expires_ns for each, expires_ns in expiries.items() if each not in self._in_memory}
        if others:
            await self._store.touch(others)

    async def expire(self, now_ns: int, limit: int) -> Sequence[Summary]:
        """See AdaptationStore.expire."""
        expired = await self._memory.expire(now_ns, limit)
        self._in_memory.difference_update(summary.id for summary in expired)
        if expired:
            return expired
        return await self._store.expire(now_ns, limit)

    async def totals(self) -> Totals:
        """See AdaptationStore.totals: those of the store."""
        return await self._store.totals()

    def _of(self, adaptation_id: str) -> AdaptationStore:
        return self._memory if adaptation_id in self._in_memory else self._store

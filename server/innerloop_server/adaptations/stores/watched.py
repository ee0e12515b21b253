"""A store whose health is known: how long its writes take, whether it answers, and no waiting for one that does not."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import structlog

from innerloop_server.adaptations.stores.interface import AdaptationStore, StoredAdaptation, Summary, Totals
from innerloop_server.domain.errors import StoreUnavailableError
from innerloop_server.observability.metrics import Metrics

R = TypeVar("R")

RETRY_SECONDS = 1.0
"""Seconds after a failure in which nothing else is tried, so that callers are refused before anything is computed."""


class WatchedStore(AdaptationStore):
    """Another store, with metrics and a note of whether it answers.

    Args:
        store: the other one.
        metrics: told how it does.
        on_change: told whether it answers, when that changes.
    """

    def __init__(self, store: AdaptationStore, metrics: Metrics, on_change: Callable[[bool], None]) -> None:
        self._store = store
        self.durable, self.shared = store.durable, store.shared
        self._metrics = metrics
        self._on_change = on_change
        self._up = True
        self._refused_until = 0.0

    async def open(self) -> None:
        """See AdaptationStore.open."""
        await self._store.open()

    async def close(self) -> None:
        """See AdaptationStore.close."""
        await self._store.close()

    def admit(self) -> None:
        """See AdaptationStore.admit."""
        if time.monotonic() < self._refused_until:
            raise StoreUnavailableError
        self._store.admit()

    async def add(self, adaptation: StoredAdaptation, most: int | None = None) -> Summary | None:
        """See AdaptationStore.add."""
        return await self._write("add", self._store.add(adaptation, most))

    async def count(self, owner: str) -> int:
        """See AdaptationStore.count."""
        return await self._watch(self._store.count(owner))

    async def replace(self, adaptation: StoredAdaptation) -> bool:
        """See AdaptationStore.replace."""
        return await self._write("replace", self._store.replace(adaptation))

    async def delete(self, adaptation_id: str) -> bool:
        """See AdaptationStore.delete."""
        return await self._write("delete", self._store.delete(adaptation_id))

    async def get(self, adaptation_id: str) -> StoredAdaptation | None:
        """See AdaptationStore.get."""
        return await self._watch(self._store.get(adaptation_id))

    async def look(self, adaptation_id: str) -> Summary | None:
        """See AdaptationStore.look."""
        return await self._watch(self._store.look(adaptation_id))

    async def revision(self, adaptation_id: str) -> int | None:
        """See AdaptationStore.revision; refuses at once what failed a moment ago, for who asks can go on without."""
        self.admit()
        return await self._watch(self._store.revision(adaptation_id))

    async def made_by(self, owner: str, request_id: str) -> Summary | None:
        """See AdaptationStore.made_by."""
        return await self._watch(self._store.made_by(owner, request_id))

    async def list(self, owner: str, model: str, before_ns: int | None, after_ns: int, limit: int) -> Sequence[Summary]:
        """See AdaptationStore.list."""
        return await self._watch(self._store.list(owner, model, before_ns, after_ns, limit))

    async def scan(self, model: str, cursor: str, limit: int) -> tuple[Sequence[Summary], str]:
        """See AdaptationStore.scan."""
        return await self._watch(self._store.scan(model, cursor, limit))

    async def touch(self, expiries: Mapping[str, int]) -> None:
        """See AdaptationStore.touch."""
        await self._write("touch", self._store.touch(expiries))

    async def expire(self, now_ns: int, limit: int) -> Sequence[Summary]:
        """See AdaptationStore.expire; with it, a sweep also finds out that a store is back."""
        expired = await self._watch(self._store.expire(now_ns, limit))
        self._metrics.store_totals(*await self.totals())
        return expired

    async def totals(self) -> Totals:
        """See AdaptationStore.totals."""
        return await self._watch(self._store.totals())

    async def _write(self, operation: str, call: Awaitable[R]) -> R:
        started = time.perf_counter()
        result = await self._watch(call)
        self._metrics.store_wrote(operation, time.perf_counter() - started)
        return result

    async def _watch(self, call: Awaitable[R]) -> R:
        """Await a call to the store, and take note of whether it answers."""
        try:
            result = await call
        except StoreUnavailableError:
            self._refused_until = time.monotonic() + RETRY_SECONDS
            self._note(up=False)
            raise
        except asyncio.CancelledError:
            raise
        if not self._up:
            self._refused_until = 0.0
        self._note(up=True)
        return result

    def _note(self, *, up: bool) -> None:
        if up != self._up:
            self._up = up
            self._metrics.store_up(up=up)
            log = structlog.get_logger()
            (log.info if up else log.error)("store is back" if up else "store is unavailable")
            self._on_change(up)

"""Keeps what can be listed of adaptations in this process, and neither states nor recipes: memory is all there is."""

import heapq
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import islice

from innerloop_server.adaptations.stores.interface import AdaptationStore, StoredAdaptation, Summary, Totals
from innerloop_server.domain.errors import TooManyAdaptationsError

SLACK = 1024
"""The heap of expiries is rebuilt when it holds this many entries more than twice the adaptations that are kept."""


class MemoryStore(AdaptationStore):
    """Summaries by id. No function ever waits."""

    durable = shared = False

    def __init__(self) -> None:
        self._by_id: dict[str, Summary] = {}
        self._by_owner: dict[str, OrderedDict[str, None]] = {}  # ids, oldest first
        self._by_request: dict[tuple[str, str], str] = {}
        self._expiries: list[tuple[int, str]] = []  # a heap; entries may be out of date
        self._bytes = 0

    async def open(self) -> None:
        """See AdaptationStore.open."""

    async def close(self) -> None:
        """See AdaptationStore.close."""

    async def add(self, adaptation: StoredAdaptation, most: int | None = None) -> Summary | None:
        """See AdaptationStore.add."""
        summary = adaptation.summary
        made = await self.made_by(summary.owner, summary.request_id) if summary.request_id else None
        if made is not None:
            if made.expires_ns > summary.created_ns:
                return made
            self._drop(made)
        if most is not None and await self.count(summary.owner) >= most:
            raise TooManyAdaptationsError(most)
        self._by_owner.setdefault(summary.owner, OrderedDict())[summary.id] = None
        self._put(summary)
        return None

    async def count(self, owner: str) -> int:
        """See AdaptationStore.count."""
        return len(self._by_owner.get(owner, ()))

    async def replace(self, adaptation: StoredAdaptation) -> bool:
        """See AdaptationStore.replace."""
        summary = adaptation.summary
        kept = self._by_id.get(summary.id)
        if kept is None or kept.revision != summary.revision - 1:
            return False
        self._bytes -= len(kept.record)
        self._put(summary._replace(expires_ns=max(kept.expires_ns, summary.expires_ns)))
        return True

    async def delete(self, adaptation_id: str) -> bool:
        """See AdaptationStore.delete."""
        kept = self._by_id.get(adaptation_id)
        if kept is not None:
            self._drop(kept)
        return kept is not None

    async def get(self, adaptation_id: str) -> StoredAdaptation | None:
        """See AdaptationStore.get."""
        summary = self._by_id.get(adaptation_id)
        return None if summary is None else StoredAdaptation(summary, b"", b"")

    async def look(self, adaptation_id: str) -> Summary | None:
        """See AdaptationStore.look."""
        return self._by_id.get(adaptation_id)

    async def revision(self, adaptation_id: str) -> int | None:
        """See AdaptationStore.revision."""
        kept = self._by_id.get(adaptation_id)
        return None if kept is None else kept.revision

    async def made_by(self, owner: str, request_id: str) -> Summary | None:
        """See AdaptationStore.made_by."""
        adaptation_id = self._by_request.get((owner, request_id))
        return None if adaptation_id is None else self._by_id[adaptation_id]

    async def list(self, owner: str, model: str, before_ns: int | None, after_ns: int, limit: int) -> Sequence[Summary]:
        """See AdaptationStore.list."""
        found = (
            summary
            for summary in map(self._by_id.__getitem__, reversed(self._by_owner.get(owner, ())))
            if (before_ns is None or summary.created_ns < before_ns)
            and summary.expires_ns > after_ns
            and model in ("", summary.model)
        )
        return list(islice(found, limit))

    async def scan(self, model: str, cursor: str, limit: int) -> tuple[Sequence[Summary], str]:
        """See AdaptationStore.scan."""
        following = (kept for kept in self._by_id.values() if kept.model == model and kept.id > cursor)
        found = heapq.nsmallest(limit, following, key=lambda kept: kept.id)
        return found, found[-1].id if len(found) == limit else ""

    async def touch(self, expiries: Mapping[str, int]) -> None:
        """See AdaptationStore.touch."""
        for adaptation_id, expires_ns in expiries.items():
            kept = self._by_id.get(adaptation_id)
            if kept is not None and expires_ns > kept.expires_ns:
                self._by_id[adaptation_id] = kept._replace(expires_ns=expires_ns)

    async def expire(self, now_ns: int, limit: int) -> Sequence[Summary]:
        """See AdaptationStore.expire."""
        expired: list[Summary] = []
        while self._expiries and self._expiries[0][0] <= now_ns and len(expired) < limit:
            _, adaptation_id = heapq.heappop(self._expiries)
            kept = self._by_id.get(adaptation_id)
            if kept is None:
                continue
            if kept.expires_ns <= now_ns:
                self._drop(kept)
                expired.append(kept)
            else:
                heapq.heappush(self._expiries, (kept.expires_ns, adaptation_id))
        return expired

    async def totals(self) -> Totals:
        """See AdaptationStore.totals."""
        return Totals(len(self._by_id), self._bytes)

    def _put(self, summary: Summary) -> None:
        self._by_id[summary.id] = summary
        if summary.request_id:
            self._by_request[summary.owner, summary.request_id] = summary.id
        heapq.heappush(self._expiries, (summary.expires_ns, summary.id))
        self._bytes += len(summary.record)

    def _drop(self, summary: Summary) -> None:
        del self._by_id[summary.id]
        owned = self._by_owner[summary.owner]
        del owned[summary.id]
        if not owned:
            del self._by_owner[summary.owner]
        if self._by_request.get((summary.owner, summary.request_id)) == summary.id:
            del self._by_request[summary.owner, summary.request_id]
        self._bytes -= len(summary.record)
        if len(self._expiries) > 2 * len(self._by_id) + SLACK:
            self._expiries = [(kept.expires_ns, kept.id) for kept in self._by_id.values()]
            heapq.heapify(self._expiries)

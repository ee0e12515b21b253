"""Adaptations in memory, under a byte budget, with expiry."""

import heapq
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from itertools import islice

from innerloop_server.adaptations.record import AdaptationRecord
from innerloop_server.domain.adaptations import KeepOptions, RequestKey
from innerloop_server.domain.errors import AdaptationEvictedError, AdaptationNotFoundError, AdaptationTooLargeError
from innerloop_server.domain.tasks import AdaptTask
from innerloop_server.engine.interface import AdaptedTask, LoadedModel
from innerloop_server.observability.metrics import Metrics

TOMBSTONES = 65_536
"""Number of dropped adaptations that are remembered, so that their owners are told that they were dropped."""

SLACK = 1024
"""The expiry heap is rebuilt when it holds this many entries more than twice the adaptations that are kept."""


class AdaptationStore:
    """Adaptations by id. Dropping one frees its memory once the requests that use it are done.

    Args:
        budget: bytes that all task states together may take; the least recently used give way.
        metrics: told about what comes and goes.
        clock: seconds; every use of an adaptation postpones its expiry.
    """

    def __init__(self, budget: int, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._budget = budget
        self._metrics = metrics
        self._clock = clock
        self._by_id: OrderedDict[str, AdaptationRecord] = OrderedDict()  # least recently used first
        self._by_owner: dict[str, OrderedDict[str, AdaptationRecord]] = {}  # oldest first
        self._by_key: dict[RequestKey, AdaptationRecord] = {}
        self._tombstones: OrderedDict[str, str] = OrderedDict()  # id -> owner
        self._expiries: list[tuple[float, str]] = []  # a heap; entries may be out of date
        self._bytes = 0
        self._last_created_ns = 0

    def keep(
        self, owner: str, model: LoadedModel, task: AdaptTask, adapted: AdaptedTask, options: KeepOptions
    ) -> AdaptationRecord:
        """Keep what a model has adapted to, and make room for it.

        Args:
            owner: identity that may use it.
            model: that adapted.
            task: that it adapted to.
            adapted: the task state, and the losses on the way to it.
            options: how to keep it.

        Raises:
            AdaptationTooLargeError: it is larger than the budget.
        """
        size = adapted.state.size_bytes
        if size > self._budget:
            raise AdaptationTooLargeError(size, self._budget)
        self.expire()
        while self._bytes + size > self._budget:
            self._drop(next(iter(self._by_id.values())), evicted=True)
        self._last_created_ns = max(time.time_ns(), self._last_created_ns + 1)
        record = AdaptationRecord(
            id=secrets.token_urlsafe(24),
            owner=owner,
            model=model,
            classes=task.classes,
            support_size=task.support.size,
            steps=task.steps,
            adapted=adapted,
            created_ns=self._last_created_ns,
            time_to_live=options.time_to_live,
            expires=self._clock() + options.time_to_live,
            key=RequestKey(owner, options.request_id) if options.request_id else None,
            fingerprint=options.fingerprint,
        )
        self._by_id[record.id] = record
        self._by_owner.setdefault(owner, OrderedDict())[record.id] = record
        if record.key is not None:
            self._by_key[record.key] = record
        heapq.heappush(self._expiries, (record.expires, record.id))
        self._bytes += size
        self._metrics.adaptation_created(model.name, size)
        return record

    def use(self, owner: str, adaptation_id: str) -> AdaptationRecord:
        """The owner's adaptation, its expiry postponed.

        Raises:
            AdaptationNotFoundError: the owner never had it, or deleted it.
            AdaptationEvictedError: it expired or gave way.
        """
        adaptation = self.look(owner, adaptation_id)
        adaptation.expires = self._clock() + adaptation.time_to_live
        self._by_id.move_to_end(adaptation_id)
        return adaptation

    def look(self, owner: str, adaptation_id: str) -> AdaptationRecord:
        """The owner's adaptation; looking does not count as use. Raises what `use` raises."""
        adaptation = self._by_id.get(adaptation_id)
        if adaptation is None:
            if self._tombstones.get(adaptation_id) == owner:
                raise AdaptationEvictedError
            raise AdaptationNotFoundError
        if adaptation.owner != owner:
            raise AdaptationNotFoundError
        if adaptation.expires <= self._clock():
            self._drop(adaptation, expired=True)
            raise AdaptationEvictedError
        return adaptation

    def made_by(self, key: RequestKey) -> AdaptationRecord | None:
        """The adaptation that a request made, if it is still kept; counts as use."""
        adaptation = self._by_key.get(key)
        if adaptation is None or adaptation.expires <= self._clock():
            return None
        return self.use(key.owner, adaptation.id)

    def list(self, owner: str, model: str, before_ns: int | None, limit: int) -> list[AdaptationRecord]:
        """The owner's adaptations, newest first.

        Args:
            owner: whose.
            model: only those of this model, unless empty.
            before_ns: only those created before; unlike a position, it stays right when others are added.
            limit: at most this many.
        """
        now = self._clock()
        found = (
            adaptation
            for adaptation in reversed(self._by_owner.get(owner, {}).values())
            if (before_ns is None or adaptation.created_ns < before_ns)
            and adaptation.expires > now
            and model in ("", adaptation.model.name)
        )
        return list(islice(found, limit))

    def delete(self, owner: str, adaptation_id: str) -> None:
        """Forget the owner's adaptation. Raises what `use` raises."""
        self._drop(self.look(owner, adaptation_id))

    def drop_model(self, model: LoadedModel) -> None:
        """Drop all adaptations of a model."""
        for adaptation in [kept for kept in self._by_id.values() if kept.model is model]:
            self._drop(adaptation, evicted=True)

    def expire(self) -> None:
        """Drop everything that has not been used for its time to live."""
        now = self._clock()
        while self._expiries and self._expiries[0][0] <= now:
            _, adaptation_id = heapq.heappop(self._expiries)
            adaptation = self._by_id.get(adaptation_id)
            if adaptation is None:
                continue
            if adaptation.expires <= now:
                self._drop(adaptation, expired=True)
            else:
                heapq.heappush(self._expiries, (adaptation.expires, adaptation_id))

    def _drop(self, adaptation: AdaptationRecord, *, expired: bool = False, evicted: bool = False) -> None:
        del self._by_id[adaptation.id]
        owned = self._by_owner[adaptation.owner]
        del owned[adaptation.id]
        if not owned:
            del self._by_owner[adaptation.owner]
        if adaptation.key is not None:
            del self._by_key[adaptation.key]
        self._bytes -= adaptation.size_bytes
        if len(self._expiries) > 2 * len(self._by_id) + SLACK:
            self._expiries = [(kept.expires, kept.id) for kept in self._by_id.values()]
            heapq.heapify(self._expiries)
        if expired or evicted:
            self._tombstones[adaptation.id] = adaptation.owner
            if len(self._tombstones) > TOMBSTONES:
                self._tombstones.popitem(last=False)
        self._metrics.adaptation_dropped(adaptation.model.name, adaptation.size_bytes, expired=expired, evicted=evicted)

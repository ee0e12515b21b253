"""Adaptations whose task states are in memory, under a byte budget."""

import heapq
from collections import Counter, OrderedDict
from dataclasses import dataclass

from innerloop_server.adaptations.record import AdaptationRecord
from innerloop_server.domain.adaptations import RequestKey
from innerloop_server.engine.interface import LoadedModel, TaskState
from innerloop_server.observability.metrics import Metrics

SLACK = 1024
"""The heap of owners is rebuilt when it holds this many entries more than twice the owners."""


@dataclass(eq=False, slots=True)
class LiveAdaptation:
    """An adaptation that can be predicted with at once.

    Attributes:
        record: of it.
        model: whose state it is.
        state: the task state.
        durable: whether a store can bring it back when it gives way.
        expires_ns: when it ends unless it is used before.
        stored_expiry_ns: when it ends as far as the store knows.
        sure: whether it is what the store keeps; it may not be after a write whose outcome is unknown.
    """

    record: AdaptationRecord
    model: LoadedModel
    state: TaskState
    durable: bool
    expires_ns: int
    stored_expiry_ns: int
    sure: bool = True


class LiveAdaptations:
    """Adaptations in memory by id. Dropping one frees its memory once the requests that use it are done.

    The rule by which they give way: of whoever has most bytes, the least recently used one, the newcomer's owner
    included. So an owner loses none to others as long as it has less than they have.

    Args:
        budget: bytes that all task states together may take.
        metrics: told about what comes and goes.
        owner_budget: bytes that the task states of one owner may take; None for as many as there are.
    """

    def __init__(self, budget: int, metrics: Metrics, owner_budget: int | None = None) -> None:
        self.budget = budget
        self.owner_budget = budget if owner_budget is None else min(owner_budget, budget)
        self._metrics = metrics
        self._by_id: dict[str, LiveAdaptation] = {}
        self._by_owner: dict[str, OrderedDict[str, LiveAdaptation]] = {}  # least recently used first
        self._by_request: dict[RequestKey, LiveAdaptation] = {}
        self._bytes_of: Counter[str] = Counter()
        self._most: list[tuple[int, str]] = []  # a heap of (-bytes, owner); entries may be out of date
        self._bytes = 0

    def get(self, adaptation_id: str) -> LiveAdaptation | None:
        """The adaptation of that id, if it is in memory; counts as its use."""
        live = self._by_id.get(adaptation_id)
        if live is not None:
            self._by_owner[live.record.owner].move_to_end(adaptation_id)
        return live

    def peek(self, adaptation_id: str) -> LiveAdaptation | None:
        """The adaptation of that id, if it is in memory; does not count as its use."""
        return self._by_id.get(adaptation_id)

    def made_by(self, key: RequestKey) -> LiveAdaptation | None:
        """The adaptation that a request made, if it is in memory; does not count as its use."""
        return self._by_request.get(key)

    def put(self, live: LiveAdaptation) -> None:
        """Hold an adaptation, for which `make_room` has made room."""
        self.drop(live.record.id)
        self._by_id[live.record.id] = live
        if live.record.request_id:
            self._by_request[live.record.request] = live
        self._by_owner.setdefault(live.record.owner, OrderedDict())[live.record.id] = live
        self._count(live, live.state.size_bytes)
        self._metrics.adaptation_held(live.record.model, live.state.size_bytes)

    def make_room(self, owner: str, size: int) -> list[LiveAdaptation]:
        """Drop adaptations until `size` bytes of an owner, at most the owner's budget, fit; these are returned."""
        dropped = []
        while self._by_id and self._bytes + size > self.budget:
            dropped.append(self._drop_oldest(self._owner_of_most(owner, size)))
        while self._bytes_of[owner] and self._bytes_of[owner] + size > self.owner_budget:
            dropped.append(self._drop_oldest(owner))
        return dropped

    def drop(self, adaptation_id: str) -> LiveAdaptation | None:
        """Let go of an adaptation; returns it if it was there."""
        live = self._by_id.pop(adaptation_id, None)
        if live is not None:
            if self._by_request.get(live.record.request) is live:
                del self._by_request[live.record.request]
            owned = self._by_owner[live.record.owner]
            del owned[adaptation_id]
            if not owned:
                del self._by_owner[live.record.owner]
            self._count(live, -live.state.size_bytes)
            self._metrics.adaptation_let_go(live.record.model, live.state.size_bytes)
        return live

    def drop_model(self, model: LoadedModel) -> list[LiveAdaptation]:
        """Let go of all adaptations of a model; these are returned."""
        dropped = [live for live in self._by_id.values() if live.model is model]
        for live in dropped:
            self.drop(live.record.id)
        return dropped

    def _drop_oldest(self, owner: str) -> LiveAdaptation:
        """Let go of the adaptation of an owner, who has some, that was used longest ago."""
        oldest = next(iter(self._by_owner[owner].values()))
        self.drop(oldest.record.id)
        return oldest

    def _owner_of_most(self, newcomer: str, size: int) -> str:
        """Who has most bytes, if the newcomer, should it have any, had `size` more."""
        while -self._most[0][0] != self._bytes_of[self._most[0][1]]:
            heapq.heappop(self._most)
        most, owner = self._most[0]
        return newcomer if self._bytes_of[newcomer] and self._bytes_of[newcomer] + size >= -most else owner

    def _count(self, live: LiveAdaptation, size: int) -> None:
        owner = live.record.owner
        self._bytes += size
        self._bytes_of[owner] += size
        if not self._bytes_of[owner]:
            del self._bytes_of[owner]
            return
        heapq.heappush(self._most, (-self._bytes_of[owner], owner))
        if len(self._most) > 2 * len(self._bytes_of) + SLACK:
            self._most = [(-taken, each) for each, taken in self._bytes_of.items()]
            heapq.heapify(self._most)

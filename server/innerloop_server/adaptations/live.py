"""Adaptations whose task states are in memory, under a byte budget."""

from collections import OrderedDict
from dataclasses import dataclass

from innerloop_server.adaptations.record import AdaptationRecord
from innerloop_server.engine.interface import LoadedModel, TaskState
from innerloop_server.observability.metrics import Metrics


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
    """

    record: AdaptationRecord
    model: LoadedModel
    state: TaskState
    durable: bool
    expires_ns: int
    stored_expiry_ns: int


class LiveAdaptations:
    """Adaptations in memory by id. Dropping one frees its memory once the requests that use it are done.

    Args:
        budget: bytes that all task states together may take.
        metrics: told about what comes and goes.
    """

    def __init__(self, budget: int, metrics: Metrics) -> None:
        self.budget = budget
        self._metrics = metrics
        self._by_id: OrderedDict[str, LiveAdaptation] = OrderedDict()  # least recently used first
        self._bytes = 0

    def get(self, adaptation_id: str) -> LiveAdaptation | None:
        """The adaptation of that id, if it is in memory; counts as its use."""
        live = self._by_id.get(adaptation_id)
        if live is not None:
            self._by_id.move_to_end(adaptation_id)
        return live

    def peek(self, adaptation_id: str) -> LiveAdaptation | None:
        """The adaptation of that id, if it is in memory; does not count as its use."""
        return self._by_id.get(adaptation_id)

    def put(self, live: LiveAdaptation) -> None:
        """Hold an adaptation, for which `make_room` has made room."""
        self.drop(live.record.id)
        self._by_id[live.record.id] = live
        self._bytes += live.state.size_bytes
        self._metrics.adaptation_held(live.record.model, live.state.size_bytes)

    def make_room(self, size: int) -> list[LiveAdaptation]:
        """Drop the least recently used adaptations until `size` bytes, at most the budget, fit; these are returned."""
        dropped = []
        while self._by_id and self._bytes + size > self.budget:
            dropped.append(next(iter(self._by_id.values())))
            self.drop(dropped[-1].record.id)
        return dropped

    def drop(self, adaptation_id: str) -> LiveAdaptation | None:
        """Let go of an adaptation; returns it if it was there."""
        live = self._by_id.pop(adaptation_id, None)
        if live is not None:
            self._bytes -= live.state.size_bytes
            self._metrics.adaptation_let_go(live.record.model, live.state.size_bytes)
        return live

    def drop_model(self, model: LoadedModel) -> list[LiveAdaptation]:
        """Let go of all adaptations of a model; these are returned."""
        dropped = [live for live in self._by_id.values() if live.model is model]
        for live in dropped:
            self.drop(live.record.id)
        return dropped

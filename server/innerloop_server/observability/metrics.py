"""Prometheus metrics of one server, in a registry of their own."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from innerloop_server.observability.call_metrics import PHASE_SECONDS, SECONDS, CallMetrics, counter, histogram
from innerloop_server.observability.merged import MergedCollector

TASKS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
EXAMPLES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
STEPS = (0, 1, 2, 3, 5, 10, 20, 50, 100)

REFUSALS = ("wait", "queue", "owner")
"""Why a request is refused: it would wait for too long, the queue is full, or its owner is at its limits."""

MIGRATED = ("migrated", "failed", "without_recipe")
"""Outcomes for an adaptation that is to move to another version of its model."""


class Metrics(CallMetrics):
    """All metrics of the server. Label values are names of models that the server holds, never text from clients.

    Args:
        version: version of the server.
        adaptation_budget: most bytes that adaptations may take.
        frontend_folder: folder that front ends write their metrics to; None if this process answers gRPC itself.
    """

    def __init__(self, version: str, adaptation_budget: int, frontend_folder: Path | None = None) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        if frontend_folder is None:
            super().__init__(self.registry)
        else:
            own = CollectorRegistry()
            super().__init__(own)
            self.registry.register(MergedCollector(own, frontend_folder))
        self._batch_size = cache(
            self._histogram("batch_size", "Tasks computed together.", TASKS, "operation", "model").labels
        )
        self._encoder_duration = cache(
            self._histogram(
                "encoder_duration_seconds",
                "Time that a frozen encoder takes for the inputs of a batch.",
                SECONDS,
                "model",
            ).labels
        )
        self._queue_depth = cache(
            self._gauge("queue_depth", "Requests waiting for the device.", "model", "operation").labels
        )
        self._refused = cache(
            self._counter(
                "requests_refused",
                "Requests refused: they would wait for too long, the queue is full, or their owner is at its limits.",
                "model",
                "reason",
            ).labels
        )
        self._estimated_wait = self._gauge("estimated_wait_seconds", "Estimated wait of a request that comes now.")
        self._support_size = cache(
            self._histogram("support_size", "Support examples of a task.", EXAMPLES, "model").labels
        )
        self._steps = cache(self._histogram("inner_loop_steps", "Inner-loop steps of a task.", STEPS, "model").labels)
        self._held = cache(self._gauge("adaptations_held", "Adaptations in memory.", "model").labels)
        self._bytes = cache(self._gauge("adaptations_bytes", "Memory that the adaptations in it take.", "model").labels)
        self._created = cache(self._counter("adaptations_created", "Adaptations made and kept.", "model").labels)
        self._updated = cache(
            self._counter("adaptations_updated", "Changes of the examples of adaptations.", "model").labels
        )
        self._expired = cache(
            self._counter("adaptations_expired", "Adaptations dropped for want of use.", "model").labels
        )
        self._evicted = cache(
            self._counter(
                "adaptations_evicted", "Adaptations dropped to make room, or with their model.", "model"
            ).labels
        )
        self._damaged = self._counter("adaptations_damaged", "Adaptations asked for that were damaged in the store.")
        self._found = cache(
            self._counter(
                "adaptations_found",
                "Uses of adaptations by where the state came from: memory, store, or recipe (computed again).",
                "model",
                "tier",
            ).labels
        )
        self._store_records = self._gauge("store_records", "Adaptations in the store.")
        self._store_bytes = self._gauge("store_bytes", "Bytes of records, task states and recipes in the store.")
        self._store_up = self._gauge("store_up", "Whether the store of adaptations answers: 1 or 0.")
        self._store_write = cache(
            self._histogram(
                "store_write_seconds", "Time until a change was in the store.", PHASE_SECONDS, "operation"
            ).labels
        )
        self._model_info = self._gauge(
            "model_info", "Versions of models of this server; always 1.", "model", "version", "method", "state"
        )
        self._migrated = cache(
            self._counter(
                "adaptations_migrated",
                "Adaptations made again on another version of their model, or not: it failed, or had no recipe.",
                "model",
                "outcome",
            ).labels
        )
        self._bundles_refused = cache(
            self._counter(
                "bundles_refused", "Bundles that could not be loaded; what served before goes on.", "model"
            ).labels
        )
        self._device_busy = self._counter("device_busy_seconds", "Time in which a batch was being computed.")
        self._frontends = self._gauge("frontends", "Front-end processes that answer gRPC.")
        self._frontend_restarts = self._counter("frontend_restarts", "Front ends that ended and were replaced.")
        self._gauge("adaptation_budget_bytes", "Memory that adaptations may take in all.").set(adaptation_budget)
        self._gauge("build_info", "Version of the server; always 1.", "version").labels(version).set(1)

    def watch_memory(self, read: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        """Report memory by (device, kind), read afresh for every scrape."""
        self.registry.register(_MemoryCollector(read))

    def batch(self, operation: str, model: str, tasks: int) -> None:
        """Record a batch that was computed."""
        self._batch_size(operation, model).observe(tasks)

    def encoder(self, model: str, seconds: float) -> None:
        """Record the time that the encoder in front of a model took for a batch."""
        self._encoder_duration(model).observe(seconds)

    def device_busy(self, seconds: float) -> None:
        """Add seconds during which the device was busy; batches side by side count once."""
        self._device_busy.inc(seconds)

    def queue_depth(self, model: str, operation: str, depth: int) -> None:
        """Set the number of waiting requests."""
        self._queue_depth(model, operation).set(depth)

    def refused(self, model: str, reason: str) -> None:
        """Count a request that was refused for one of the reasons in `REFUSALS`."""
        self._refused(model, reason).inc()

    def estimated_wait(self, seconds: float) -> None:
        """Set the estimated wait of a request that comes now."""
        self._estimated_wait.set(seconds)

    def adapted(self, model: str, support_size: int, steps: int) -> None:
        """Count a task that was adapted to."""
        self._support_size(model).observe(support_size)
        self._steps(model).observe(steps)

    def adaptation_created(self, model: str) -> None:
        """Count an adaptation that was made to be kept."""
        self._created(model).inc()

    def adaptation_updated(self, model: str) -> None:
        """Count a change of the examples of an adaptation."""
        self._updated(model).inc()

    def adaptation_held(self, model: str, size_bytes: int) -> None:
        """Count an adaptation whose state is in memory from now on."""
        self._held(model).inc()
        self._bytes(model).inc(size_bytes)

    def adaptation_let_go(self, model: str, size_bytes: int) -> None:
        """Count an adaptation whose state is in memory no more."""
        self._held(model).dec()
        self._bytes(model).dec(size_bytes)

    def adaptation_expired(self, model: str) -> None:
        """Count an adaptation that was not used for its time to live."""
        self._expired(model).inc()

    def adaptation_evicted(self, model: str) -> None:
        """Count an adaptation that gave way to others, or went with its model, for good."""
        self._evicted(model).inc()

    def adaptation_migrated(self, model: str, outcome: str) -> None:
        """Count an adaptation that was to move to another version of its model, by an outcome in `MIGRATED`."""
        self._migrated(model, outcome).inc()

    def adaptation_damaged(self) -> None:
        """Count an adaptation that was asked for, and of which nothing is left that could bring it back."""
        self._damaged.inc()

    def adaptation_found(self, model: str, tier: str) -> None:
        """Count a use of an adaptation by where its state came from: memory, store, or recipe."""
        self._found(model, tier).inc()

    def store_up(self, *, up: bool) -> None:
        """Set whether the store answers."""
        self._store_up.set(up)

    def store_totals(self, records: int, size_bytes: int) -> None:
        """Set how much the store keeps."""
        self._store_records.set(records)
        self._store_bytes.set(size_bytes)

    def store_wrote(self, operation: str, seconds: float) -> None:
        """Record how long a change took."""
        self._store_write(operation).observe(seconds)

    def model(self, model: str, versions: Sequence[tuple[str, str, str]]) -> None:
        """Set the versions of a model: of each its version, method and state.

        All series of the model start at zero, so that their first increase can be seen.
        """
        self.model_gone(model)
        for version, method, state in versions:
            self._model_info.labels(model, version, method, state).set(1)
        adaptations = self._held, self._bytes, self._created, self._updated, self._expired, self._evicted
        for series in (*adaptations, self._bundles_refused):
            series(model)
        for reason in REFUSALS:
            self._refused(model, reason)
        for outcome in MIGRATED:
            self._migrated(model, outcome)

    def model_refused(self, model: str) -> None:
        """Count a bundle that could not be loaded."""
        self._bundles_refused(model).inc()

    def model_gone(self, model: str) -> None:
        """Forget the state of a model that was unloaded, or that is about to be in another state."""
        self._model_info.remove_by_labels({"model": model})

    def frontends(self, count: int) -> None:
        """Set the number of front ends that answer gRPC."""
        self._frontends.set(count)

    def frontend_restarted(self) -> None:
        """Count a front end that replaces one that ended."""
        self._frontend_restarts.inc()

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return counter(self.registry, name, about, *labels)

    def _gauge(self, name: str, about: str, *labels: str) -> Gauge:
        return Gauge(f"innerloop_{name}", about, labels, registry=self.registry)

    def _histogram(self, name: str, about: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return histogram(self.registry, name, about, buckets, *labels)


class _MemoryCollector(Collector):
    def __init__(self, read: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        self._read = read

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Give one gauge with a sample for each device and kind of memory."""
        gauge = GaugeMetricFamily(
            "innerloop_device_memory_bytes",
            "Memory in use on the device that computes.",
            labels=["device", "kind"],
        )
        for labels, size in self._read().items():
            gauge.add_metric(labels, size)
        yield gauge

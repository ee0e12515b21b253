"""Prometheus metrics of one server, in a registry of their own."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
PHASE_SECONDS = (0.0001, 0.0002, *SECONDS)
TASKS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
EXAMPLES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
STEPS = (0, 1, 2, 3, 5, 10, 20, 50, 100)

NO_MODEL = ""
"""Model label of requests that name no model of this server: what clients make up must not become a label."""


class Metrics:
    """Every metric of the server. Label values are names of models that the server holds, never a client's words."""

    def __init__(self, version: str, adaptation_budget: int) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        # Finding a series by its labels costs more than adding to it, so series are remembered.
        self._requests = cache(
            self._counter(
                "requests", "Requests answered; each query of a stream is one.", "rpc", "model", "status"
            ).labels
        )
        self._request_duration = cache(
            self._histogram(
                "request_duration_seconds", "Time from a request's arrival to its answer.", SECONDS, "rpc", "model"
            ).labels
        )
        self._phase_duration = cache(
            self._histogram(
                "phase_duration_seconds",
                "Time that requests spend waiting, adapting, predicting, and being decoded and encoded.",
                PHASE_SECONDS,
                "phase",
                "model",
            ).labels
        )
        self._batch_size = cache(
            self._histogram("batch_size", "Tasks computed together.", TASKS, "operation", "model").labels
        )
        self._queue_depth = cache(
            self._gauge("queue_depth", "Requests waiting for the device.", "model", "operation").labels
        )
        self._support_size = cache(
            self._histogram("support_size", "Support examples of a task.", EXAMPLES, "model").labels
        )
        self._steps = cache(self._histogram("inner_loop_steps", "Inner-loop steps of a task.", STEPS, "model").labels)
        self._held = cache(self._gauge("adaptations_held", "Adaptations kept.", "model").labels)
        self._bytes = cache(self._gauge("adaptations_bytes", "Memory that kept adaptations take.", "model").labels)
        self._created = cache(self._counter("adaptations_created", "Adaptations made and kept.", "model").labels)
        self._expired = cache(
            self._counter("adaptations_expired", "Adaptations dropped for want of use.", "model").labels
        )
        self._evicted = cache(
            self._counter(
                "adaptations_evicted", "Adaptations dropped to make room, or with their model.", "model"
            ).labels
        )
        self._model_info = self._gauge(
            "model_info", "Models of this server; always 1.", "model", "version", "method", "state"
        )
        self._gauge("adaptation_budget_bytes", "Memory that adaptations may take in all.").set(adaptation_budget)
        self._gauge("build_info", "Version of the server; always 1.", "version").labels(version).set(1)

    def watch_memory(self, read: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        """Report memory by (device, kind), read afresh for every scrape."""
        self.registry.register(_MemoryCollector(read))

    def request(self, rpc: str, model: str, status: str, seconds: float) -> None:
        """A request was answered with a status code."""
        self._requests(rpc, model, status).inc()
        self._request_duration(rpc, model).observe(seconds)

    def phase(self, phase: str, model: str, seconds: float) -> None:
        """A request spent time in a phase: queue, adapt, predict or encode."""
        self._phase_duration(phase, model).observe(seconds)

    def batch(self, operation: str, model: str, tasks: int) -> None:
        """A batch was computed."""
        self._batch_size(operation, model).observe(tasks)

    def queue_depth(self, model: str, operation: str, depth: int) -> None:
        """The number of waiting requests changed."""
        self._queue_depth(model, operation).set(depth)

    def adapted(self, model: str, support_size: int, steps: int) -> None:
        """A task was adapted to."""
        self._support_size(model).observe(support_size)
        self._steps(model).observe(steps)

    def adaptation_created(self, model: str, size_bytes: int) -> None:
        """An adaptation is now kept."""
        self._created(model).inc()
        self._held(model).inc()
        self._bytes(model).inc(size_bytes)

    def adaptation_dropped(self, model: str, size_bytes: int, *, expired: bool = False, evicted: bool = False) -> None:
        """An adaptation is no longer kept: deleted by its owner unless said otherwise."""
        self._held(model).dec()
        self._bytes(model).dec(size_bytes)
        if expired:
            self._expired(model).inc()
        if evicted:
            self._evicted(model).inc()

    def model(self, model: str, version: str, method: str, state: str) -> None:
        """A model is in a state; its series start at zero, so that their first increase can be seen."""
        self.model_gone(model)
        self._model_info.labels(model, version, method, state).set(1)
        for series in (self._held, self._bytes, self._created, self._expired, self._evicted):
            series(model)

    def model_gone(self, model: str) -> None:
        """A model is no longer there, or no longer in the state it was in."""
        self._model_info.remove_by_labels({"model": model})

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"innerloop_{name}", about, labels, registry=self.registry)

    def _gauge(self, name: str, about: str, *labels: str) -> Gauge:
        return Gauge(f"innerloop_{name}", about, labels, registry=self.registry)

    def _histogram(self, name: str, about: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(f"innerloop_{name}", about, labels, buckets=buckets, registry=self.registry)


class _MemoryCollector(Collector):
    def __init__(self, read: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        self._read = read

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """One gauge, a sample for each device and kind."""
        gauge = GaugeMetricFamily(
            "innerloop_device_memory_bytes",
            "Memory in use on the device that computes.",
            labels=["device", "kind"],
        )
        for labels, size in self._read().items():
            gauge.add_metric(labels, size)
        yield gauge

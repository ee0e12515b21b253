"""Prometheus metrics of one server, in a registry of their own."""

from collections.abc import Callable, Iterable, Mapping

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
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "innerloop_requests_total", "Requests answered.", ["rpc", "model", "status"], registry=registry
        )
        self._request_duration = Histogram(
            "innerloop_request_duration_seconds",
            "Time from a request's arrival to its answer.",
            ["rpc", "model"],
            buckets=SECONDS,
            registry=registry,
        )
        self._phase_duration = Histogram(
            "innerloop_phase_duration_seconds",
            "Time that requests spend waiting, adapting, predicting, and being decoded and encoded.",
            ["phase", "model"],
            buckets=PHASE_SECONDS,
            registry=registry,
        )
        self._batch_size = Histogram(
            "innerloop_batch_size", "Tasks computed together.", ["operation", "model"], buckets=TASKS, registry=registry
        )
        self._queue_depth = Gauge(
            "innerloop_queue_depth", "Requests waiting for the device.", ["model", "operation"], registry=registry
        )
        self._support_size = Histogram(
            "innerloop_support_size", "Support examples of a task.", ["model"], buckets=EXAMPLES, registry=registry
        )
        self._steps = Histogram(
            "innerloop_inner_loop_steps", "Inner-loop steps of a task.", ["model"], buckets=STEPS, registry=registry
        )
        self._held = Gauge("innerloop_adaptations_held", "Adaptations kept.", ["model"], registry=registry)
        self._bytes = Gauge(
            "innerloop_adaptations_bytes", "Memory that kept adaptations take.", ["model"], registry=registry
        )
        self._created = Counter(
            "innerloop_adaptations_created_total", "Adaptations made and kept.", ["model"], registry=registry
        )
        self._expired = Counter(
            "innerloop_adaptations_expired_total", "Adaptations dropped for want of use.", ["model"], registry=registry
        )
        self._evicted = Counter(
            "innerloop_adaptations_evicted_total", "Adaptations dropped to make room.", ["model"], registry=registry
        )
        self._model_info = Gauge(
            "innerloop_model_info",
            "Models of this server; always 1.",
            ["model", "version", "method", "state"],
            registry=registry,
        )
        Gauge("innerloop_adaptation_budget_bytes", "Memory that adaptations may take in all.", registry=registry).set(
            adaptation_budget
        )
        Gauge("innerloop_build_info", "Version of the server; always 1.", ["version"], registry=registry).labels(
            version
        ).set(1)

    def watch_memory(self, read: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        """Report memory by (device, kind), read afresh for every scrape."""
        self.registry.register(_MemoryCollector(read))

    def request(self, rpc: str, model: str, status: str, seconds: float) -> None:
        """A request was answered with a status code."""
        self._requests.labels(rpc, model, status).inc()
        self._request_duration.labels(rpc, model).observe(seconds)

    def phase(self, phase: str, model: str, seconds: float) -> None:
        """A request spent time in a phase: queue, adapt, predict or encode."""
        self._phase_duration.labels(phase, model).observe(seconds)

    def batch(self, operation: str, model: str, tasks: int) -> None:
        """A batch was computed."""
        self._batch_size.labels(operation, model).observe(tasks)

    def queue_depth(self, model: str, operation: str, depth: int) -> None:
        """The number of waiting requests changed."""
        self._queue_depth.labels(model, operation).set(depth)

    def adapted(self, model: str, support_size: int, steps: int) -> None:
        """A task was adapted to."""
        self._support_size.labels(model).observe(support_size)
        self._steps.labels(model).observe(steps)

    def adaptation_created(self, model: str, size_bytes: int) -> None:
        """An adaptation is now kept."""
        self._created.labels(model).inc()
        self._held.labels(model).inc()
        self._bytes.labels(model).inc(size_bytes)

    def adaptation_dropped(self, model: str, size_bytes: int, *, expired: bool = False, evicted: bool = False) -> None:
        """An adaptation is no longer kept: deleted by its owner unless said otherwise."""
        self._held.labels(model).dec()
        self._bytes.labels(model).dec(size_bytes)
        if expired:
            self._expired.labels(model).inc()
        if evicted:
            self._evicted.labels(model).inc()

    def model(self, model: str, version: str, method: str, state: str) -> None:
        """A model is in a state; its series start at zero, so that their first increase can be seen."""
        self.model_gone(model)
        self._model_info.labels(model, version, method, state).set(1)
        for series in (self._held, self._bytes, self._created, self._expired, self._evicted):
            series.labels(model)

    def model_gone(self, model: str) -> None:
        """A model is no longer there, or no longer in the state it was in."""
        self._model_info.remove_by_labels({"model": model})


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

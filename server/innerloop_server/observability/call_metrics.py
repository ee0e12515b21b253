"""Prometheus metrics of RPCs, which every process that answers gRPC writes."""

from collections.abc import Iterable, Sequence
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Histogram

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
PHASE_SECONDS = (0.0001, 0.0002, *SECONDS)

LABELS = (0, 1, 2, 3, 5, 10, 20, 50, 100)
"""Sizes of label sets that are told apart."""

NO_MODEL = ""
"""Model label of requests that name no model of this server, so that clients can't create labels."""


class CallMetrics:
    """Counts requests, and measures how long they take in all and in each phase.

    Model labels are names of models that the server holds, and version labels short digests of those that it loaded.

    Args:
        registry: registry that the metrics are added to.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        # Finding a series by its labels takes longer than adding to it, so series are remembered.
        self._requests = cache(
            counter(
                registry, "requests", "Requests answered; each query of a stream is one.", "rpc", "model", "status"
            ).labels
        )
        self._request_duration = cache(
            histogram(
                registry,
                "request_duration_seconds",
                "Time from a request's arrival to its answer.",
                SECONDS,
                "rpc",
                "model",
            ).labels
        )
        self._version_requests = cache(
            counter(
                registry,
                "version_requests",
                "Requests that adapt a version of a model, or ask an adaptation of it.",
                "model",
                "version",
                "status",
            ).labels
        )
        self._version_duration = cache(
            histogram(
                registry,
                "version_request_duration_seconds",
                "Time from the arrival of such a request to its answer.",
                SECONDS,
                "model",
                "version",
            ).labels
        )
        self._phase_duration = cache(
            histogram(
                registry,
                "phase_duration_seconds",
                "Time that requests spend waiting, in the frozen encoder, adapting, predicting, and in the codec.",
                PHASE_SECONDS,
                "phase",
                "model",
            ).labels
        )

        self._judged = cache(
            counter(
                registry,
                "queries_judged",
                "Queries to calibrated models by whether they pass for known or unknown at 5% false alarms.",
                "model",
                "verdict",
            ).labels
        )
        self._label_set_size = cache(
            histogram(
                registry, "label_set_size", "Labels in the set of a query with a coverage.", LABELS, "model"
            ).labels
        )

        self._examples = cache(
            counter(
                registry,
                "examples_diagnosed",
                "Support examples by whether their label passes for right or doubtful, where that was asked for.",
                "model",
                "verdict",
            ).labels
        )

    def request(self, rpc: str, model: str, version: str, status: str, seconds: float) -> None:
        """Count a request that was answered with a status code; its version is empty if it is about none."""
        self._requests(rpc, model, status).inc()
        self._request_duration(rpc, model).observe(seconds)
        if version:
            self._version_requests(model, version, status).inc()
            self._version_duration(model, version).observe(seconds)

    def judged(self, model: str, queries: int, unknown: int) -> None:
        """Count queries to a calibrated model, and how many of them pass for unknown."""
        self._judged(model, "known").inc(queries - unknown)
        of_unknown = self._judged(model, "unknown")  # starts at zero, so that its first increase can be seen
        if unknown:
            of_unknown.inc(unknown)

    def diagnosed(self, model: str, examples: int, doubtful: int) -> None:
        """Count examples about whose labels the others were asked, and how many of them pass for doubtful."""
        self._examples(model, "right").inc(examples - doubtful)
        self._examples(model, "doubtful").inc(doubtful)

    def label_sets(self, model: str, sizes: Iterable[int]) -> None:
        """Record how many labels the sets of some queries hold."""
        size_of = self._label_set_size(model)
        for size in sizes:
            size_of.observe(size)

    def phase(self, phase: str, model: str, seconds: float) -> None:
        """Record the time that a request spent in a phase: queue, encoder, adapt, predict or encode."""
        self._phase_duration(phase, model).observe(seconds)


def counter(registry: CollectorRegistry, name: str, about: str, *labels: str) -> Counter:
    """A counter with the prefix that all of the server's metrics have."""
    return Counter(f"innerloop_{name}", about, labels, registry=registry)


def histogram(registry: CollectorRegistry, name: str, about: str, buckets: Sequence[float], *labels: str) -> Histogram:
    """A histogram with the prefix that all of the server's metrics have."""
    return Histogram(f"innerloop_{name}", about, labels, buckets=buckets, registry=registry)

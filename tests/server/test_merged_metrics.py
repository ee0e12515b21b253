"""Metrics that several processes write."""

import subprocess
import sys

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from innerloop_server.observability.metrics import Metrics

WRITER = """
import os, signal, sys
from pathlib import Path
from prometheus_client import CollectorRegistry
from innerloop_server.observability.call_metrics import CallMetrics
from innerloop_server.observability.merged import write_metrics_to
write_metrics_to(Path(sys.argv[1]), int(sys.argv[2]))
metrics = CallMetrics(CollectorRegistry())
for _ in range(int(sys.argv[3])):
    metrics.request("Predict", "model", "1", "OK", 0.003)
    metrics.phase("encode", "model", 0.0001)
os.kill(os.getpid(), signal.SIGKILL)
"""


def write(folder, slot, requests):
    command = [sys.executable, "-c", WRITER, str(folder), str(slot), str(requests)]
    assert subprocess.run(command, check=False).returncode == -9


def families(metrics):
    return list(text_string_to_metric_families(generate_latest(metrics.registry).decode()))


def test_sums_hold_what_every_process_wrote_though_it_was_killed_and_replaced(tmp_path):
    metrics = Metrics("test", 1000, tmp_path)
    metrics.request("Predict", "model", "1", "OK", 0.003)
    metrics.phase("adapt", "model", 0.5)
    for slot, requests in ((0, 2), (1, 3), (0, 4)):
        write(tmp_path, slot, requests)
    (tmp_path / "counter_9.db").touch()  # as it is for a moment after it was made
    value = metrics.registry.get_sample_value
    labels = {"rpc": "Predict", "model": "model"}
    assert value("innerloop_requests_total", {**labels, "status": "OK"}) == 1 + 2 + 3 + 4
    assert value("innerloop_request_duration_seconds_count", labels) == 10
    assert value("innerloop_request_duration_seconds_bucket", {**labels, "le": "0.002"}) == 0
    assert value("innerloop_request_duration_seconds_bucket", {**labels, "le": "0.005"}) == 10
    assert value("innerloop_request_duration_seconds_bucket", {**labels, "le": "+Inf"}) == 10
    assert value("innerloop_phase_duration_seconds_count", {"phase": "encode", "model": "model"}) == 9
    assert value("innerloop_phase_duration_seconds_count", {"phase": "adapt", "model": "model"}) == 1
    assert len(list(tmp_path.iterdir())) == 2 * 2 + 1, "a successor goes on in the files of the one before"


def test_every_family_is_there_once_with_the_same_labels_as_without_front_ends(tmp_path):
    alone, merged = Metrics("test", 1000), Metrics("test", 1000, tmp_path)
    for metrics in (alone, merged):
        metrics.request("Predict", "model", "1", "OK", 0.003)
        metrics.phase("encode", "model", 0.0001)
    write(tmp_path, 0, 1)
    names = [family.name for family in families(merged)]
    assert len(names) == len(set(names))

    def series(metrics):
        return sorted(
            (sample.name, sorted(sample.labels.items())) for family in families(metrics) for sample in family.samples
        )

    assert series(merged) == series(alone)
    kinds = {(family.name, family.type, family.documentation) for family in families(alone)}
    assert kinds == {(family.name, family.type, family.documentation) for family in families(merged)}

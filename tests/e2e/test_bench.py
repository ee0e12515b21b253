"""The load generator against a real server: its report and the server's own counts agree."""

from collections import Counter

import pytest
from running import Metrics, wait_until

from innerloop_command.bench import BenchSettings, ClosedLoop, OpenLoop, run_bench

RPCS = {"Adapt", "Predict", "AdaptPredict", "DeleteAdaptation"}


def answered_calls(server, model=None):
    """How many calls the server has answered so far, by RPC and status; those of one model if it is given."""
    counts = Counter()
    for sample in Metrics(server.metrics_url).samples("innerloop_requests_total"):
        if sample.labels["rpc"] in RPCS and model in (None, sample.labels["model"]):
            counts[sample.labels["rpc"], sample.labels["status"]] += int(sample.value)
    return counts


def bench(server, model, **changed):
    return run_bench(
        BenchSettings(
            model,
            server=server.target,
            metrics_url=server.metrics_url,
            server_pid=server.process.pid,
            **{"warm_up": 0.2, "duration": 0.5, "adaptations": 20} | changed,
        )
    )


@pytest.fixture(scope="module", params=["prototypes", "gradients", "regression"])
def measured(request, server):
    """A run with a closed and an open loop, and the calls that the server counted meanwhile."""
    before = answered_calls(server)
    result = bench(server, request.param, loads=(ClosedLoop(3), OpenLoop(80)), processes=2)
    # A call is counted after it was answered.
    wait_until(lambda: (answered_calls(server) - before).total() >= result.calls.total())
    return result, answered_calls(server) - before


def test_counts_are_those_of_the_server(measured):
    result, counted = measured
    assert not result.failures
    assert counted == result.calls
    for load in result.loads:
        assert set(load.rpcs) == RPCS - {"DeleteAdaptation"}
        assert all(measured.requests == measured.latency.count > 0 for measured in load.rpcs.values())


@pytest.mark.parametrize("measured", ["gradients"], indirect=True)
def test_phases_add_up_to_the_latency(measured):
    rpcs = measured[0].loads[0].rpcs
    for rpc in rpcs.values():
        assert sum(times.mean for times in rpc.phases.values()) == pytest.approx(rpc.latency.mean, rel=0.01)
    assert rpcs["Adapt"].phases["adapt"].percentile(50) > 0
    assert rpcs["Adapt"].phases["predict"].max == 0
    assert rpcs["Predict"].phases["predict"].percentile(50) > 0


@pytest.mark.parametrize("measured", ["gradients"], indirect=True)
def test_what_server_and_device_did_is_told(measured):
    load = measured[0].loads[0]
    assert 0 < load.server.cpu_cores < 8
    assert 0 < load.server.main_cpu_cores < 8
    assert load.server.batches_at_once > 0
    assert 0 < load.server.device_busy < 1.5
    assert set(load.server.batch_size) == {"adapt", "predict"}
    assert all(1 <= size <= 4 for size in load.server.batch_size.values())
    assert load.server.adaptations_held >= 20
    assert load.server.adaptations_bytes > 1000
    assert load.server.device_memory_bytes["cpu resident"] > 2**20
    assert load.cpu_cores > 0


@pytest.fixture(scope="module")
def crowded_server(start_server):
    """A server of several processes that has room for few adaptations."""
    with start_server(lanes=2, frontends=1, adaptation_bytes="20KiB") as server:
        yield server


def test_batches_and_processes_side_by_side_are_all_told_of(crowded_server):
    settings = {"mix": {"Adapt": 1.0}, "steps": 100, "duration": 1.0}
    (load,) = bench(crowded_server, "gradients", loads=(ClosedLoop(4),), **settings).loads
    assert load.server.batches_at_once > 1
    assert load.server.cpu_cores > load.server.main_cpu_cores


def test_more_adaptations_than_fit_are_evicted_and_made_again(crowded_server):
    result = bench(crowded_server, "prototypes", loads=(ClosedLoop(2),), adaptations=100, popularity="zipf")
    (load,) = result.loads
    outcomes = load.rpcs["Predict"].outcomes
    assert not result.failures
    assert set(outcomes) == {"OK", "EVICTED"}
    assert load.measured.remade["OK"] > 0
    assert load.server.adaptations_evicted > 0
    assert load.server.adaptations_bytes <= 20 * 1024
    expected = result.calls["Predict", "OK"]
    wait_until(lambda: answered_calls(crowded_server, "prototypes")["Predict", "OK"] >= expected)
    assert answered_calls(crowded_server, "prototypes")["Predict", "OK"] == expected


def test_a_request_that_the_model_refuses_is_told_before_any_load(server):
    with pytest.raises(ValueError, match="this model takes at most 5"):
        bench(server, "gradients", ways=9)

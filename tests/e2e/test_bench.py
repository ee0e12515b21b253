"""The load generator against a real server: its report and the server's own counts agree."""

import pytest
from running import Metrics, wait_until

from innerloop_command.bench import BenchSettings, ClosedLoop, OpenLoop, run_bench

RPCS = {"Adapt", "Predict", "AdaptPredict", "DeleteAdaptation"}


@pytest.fixture
def counted(server):
    """Tells how many calls the server has answered since, by RPC and status."""
    metrics = Metrics(server.metrics_url)

    def read():
        counts = {}
        for sample in metrics.samples("innerloop_requests_total"):
            key = sample.labels["rpc"], sample.labels["status"]
            if key[0] in RPCS:
                counts[key] = counts.get(key, 0) + int(sample.value)
        return counts

    before = read()
    return lambda: {key: count - before.get(key, 0) for key, count in read().items() if count != before.get(key, 0)}


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


@pytest.mark.parametrize("model", ["prototypes", "gradients", "regression"])
def test_counts_are_those_of_the_server(server, counted, model):
    result = bench(server, model, loads=(ClosedLoop(3), OpenLoop(80)), processes=2)
    assert not result.failures
    wait_until(lambda: sum(counted().values()) >= result.calls.total())  # a call is counted after it was answered
    assert counted() == dict(result.calls)
    for load in result.loads:
        assert set(load.rpcs) == RPCS - {"DeleteAdaptation"}
        assert all(measured.requests == measured.latency.count > 0 for measured in load.rpcs.values())


def test_phases_add_up_to_the_latency(server):
    (load,) = bench(server, "gradients", loads=(ClosedLoop(2),)).loads
    for measured in load.rpcs.values():
        assert sum(times.mean for times in measured.phases.values()) == pytest.approx(measured.latency.mean, rel=0.01)
    assert load.rpcs["Adapt"].phases["adapt"].percentile(50) > 0
    assert load.rpcs["Adapt"].phases["predict"].max == 0
    assert load.rpcs["Predict"].phases["predict"].percentile(50) > 0


def test_what_server_and_device_did_is_told(server):
    (load,) = bench(server, "gradients", loads=(ClosedLoop(4),)).loads
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


def test_batches_and_processes_side_by_side_are_all_told_of(start_server):
    with start_server(lanes=3, frontends=2) as server:
        settings = {"mix": {"Adapt": 1.0}, "steps": 200, "duration": 1.5}
        (load,) = bench(server, "gradients", loads=(ClosedLoop(6),), **settings).loads
        assert load.server.batches_at_once > 1
        assert load.server.cpu_cores > load.server.main_cpu_cores


def test_more_adaptations_than_fit_are_evicted_and_made_again(start_server):
    with start_server(adaptation_bytes="20KiB") as server:
        result = bench(server, "prototypes", loads=(ClosedLoop(2),), adaptations=100, popularity="zipf")
        (load,) = result.loads
        outcomes = load.rpcs["Predict"].outcomes
        assert not result.failures
        assert set(outcomes) == {"OK", "EVICTED"}
        assert load.measured.remade["OK"] > 0
        assert load.server.adaptations_evicted > 0
        assert load.server.adaptations_bytes <= 20 * 1024
        metrics = Metrics(server.metrics_url)
        assert (
            metrics("innerloop_requests_total", rpc="Predict", model="prototypes", status="OK")
            == (result.calls["Predict", "OK"])
        )


def test_a_request_that_the_model_refuses_is_told_before_any_load(server):
    with pytest.raises(ValueError, match="this model takes at most 5"):
        bench(server, "gradients", ways=9)

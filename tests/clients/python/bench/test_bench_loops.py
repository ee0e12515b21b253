"""What the loops make of a server that stalls, drops adaptations, or refuses."""

import multiprocessing
import threading
import time
from contextlib import contextmanager

import pytest
from grpc import StatusCode
from prometheus_client import CollectorRegistry, start_http_server
from scripted_server import Failure, overloaded

from innerloop.errors import InnerloopError
from innerloop.timings import Timings
from innerloop_command.bench import BenchSettings, ClosedLoop, OpenLoop, run_bench
from innerloop_command.bench.measurements import RpcMeasurements
from innerloop_command.bench.server_usage import ServerUsage
from innerloop_command.bench.workers import Job, Workers, shares

STALL = 0.5


def settings(server, load, **changed):
    return BenchSettings(
        "grey",
        loads=(load,),
        server=server.address,
        **{"mix": {"Predict": 1}, "adaptations": 4, "warm_up": 0.0, "duration": 1.2, "queries": 1} | changed,
    )


@contextmanager
def after_predicts(server, count, act):
    """Do something in the middle of a run."""

    def wait_and_act():
        give_up = time.monotonic() + 20
        while len(server.requests("Predict")) < count and time.monotonic() < give_up:
            time.sleep(0.005)
        act()

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    yield
    thread.join()


@contextmanager
def stalling(server):
    def stall():
        server.going.clear()
        time.sleep(STALL)
        server.going.set()

    with after_predicts(server, 20, stall):
        yield


def slow(histogram, seconds):
    """Part of the requests that took longer."""
    ranks = range(101)
    return sum(histogram.percentile(rank) > seconds for rank in ranks) / len(ranks)


def test_the_open_loop_counts_a_stall_for_all_requests_that_were_due_meanwhile(server):
    with stalling(server):
        result = run_bench(settings(server, OpenLoop(150)))
    (load,) = result.loads
    latency = load.rpcs["Predict"].latency
    assert not result.failures
    assert latency.count == load.rpcs["Predict"].requests == pytest.approx(1.2 * 150, rel=0.35)
    assert latency.max > 0.8 * STALL
    # Those due in the first half of the stall waited for more than the second half of it, and so on.
    assert slow(latency, 0.5 * STALL) > 0.5 * 0.5 * STALL / 1.2
    assert slow(latency, 0.2 * STALL) > 0.5 * 0.8 * STALL / 1.2


def test_the_closed_loop_gives_service_times_in_which_a_stall_is_rare(server):
    with stalling(server):
        result = run_bench(settings(server, ClosedLoop(2)))
    latency = result.loads[0].rpcs["Predict"].latency
    assert latency.max > 0.8 * STALL
    assert latency.percentile(95) < 0.2 * STALL
    assert latency.count > 100


def test_requests_beyond_the_bound_are_dropped_and_counted_as_failures(server):
    with stalling(server):
        result = run_bench(settings(server, OpenLoop(150), max_under_way=4))
    (load,) = result.loads
    assert load.measured.dropped == result.failures["dropped"] > 0.5 * 150 * STALL
    assert load.rpcs["Predict"].requests + load.measured.dropped == pytest.approx(1.2 * 150, rel=0.35)
    assert len(server.requests("Predict")) == load.rpcs["Predict"].requests + 1  # one before the load


def test_latency_counts_from_the_moment_a_request_was_due():
    measured = RpcMeasurements()
    measured.record("OK", due=1.0, sent=1.5, done=1.7, timings=Timings(0.04, 0.0, 0.05, 0.01, 0.0))
    assert measured.latency.max == pytest.approx(0.7, rel=1e-3)
    assert measured.phases["network and client"].max == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize("load", [ClosedLoop(2), OpenLoop(100)], ids=["closed", "open"])
def test_adaptations_that_the_server_drops_are_made_again(server, load):
    with after_predicts(server, 20, server.evict_all):
        result = run_bench(settings(server, load, duration=0.8))
    measured = result.loads[0].measured
    outcomes = measured.rpcs["Predict"].outcomes
    assert set(outcomes) == {"OK", "EVICTED"}
    assert 1 <= measured.remade["OK"] <= 4 <= outcomes["OK"]
    assert measured.rpcs["Predict"].latency.count == outcomes["OK"]
    assert not result.failures
    assert not server.kept, "at the end all are deleted"


def test_requests_that_run_out_of_time_are_part_of_the_latencies(server):
    with stalling(server):
        result = run_bench(settings(server, ClosedLoop(2), timeout=0.8 * STALL))
    predict = result.loads[0].rpcs["Predict"]
    assert result.failures == {"DEADLINE_EXCEEDED": predict.outcomes["DEADLINE_EXCEEDED"]}
    assert predict.latency.count == predict.requests
    assert predict.latency.max == pytest.approx(0.8 * STALL, rel=0.2)


def test_errors_are_counted_by_status(server):
    def refuse():
        server.script("Predict", *[overloaded(1.0)] * 3)

    with after_predicts(server, 5, refuse):
        result = run_bench(settings(server, ClosedLoop(1), duration=0.5))
    assert result.failures == {"RESOURCE_EXHAUSTED": 3}
    assert result.calls["Predict", "RESOURCE_EXHAUSTED"] == 3


def test_the_warm_up_is_not_measured(server):
    result = run_bench(settings(server, ClosedLoop(1), warm_up=0.4, duration=0.4))
    predict = result.loads[0].rpcs["Predict"]
    sent = len(server.requests("Predict"))
    assert 0.2 * sent < predict.requests < 0.8 * sent
    assert result.calls["Predict", "OK"] == sent
    assert predict.answered / 0.4 == pytest.approx(result.loads[0].throughput)


def test_each_adapt_that_is_measured_is_a_request_of_its_own_with_a_short_life(server):
    result = run_bench(settings(server, ClosedLoop(1), mix={"Adapt": 1, "AdaptPredict": 1}, duration=0.3))
    requests = server.requests("Adapt")
    assert len({request.request_id for request in requests}) == len(requests) == result.calls["Adapt", "OK"]
    assert {request.options.time_to_live.seconds for request in requests} == {1}
    assert {len(request.support.labels.values) for request in requests} == {5}
    assert not any(request.keep for request in server.requests("AdaptPredict"))
    assert not server.requests("Predict")


def test_a_server_that_holds_hardly_any_adaptation_is_measured(server):
    server.script("Predict", server._gone(""))  # of the adaptation that was made last, before any load
    result = run_bench(settings(server, ClosedLoop(1), duration=0.2))
    assert not result.failures
    assert result.calls["Predict", "NOT_FOUND"] == 1


def test_an_adaptation_that_can_not_be_deleted_does_not_keep_the_others(server):
    server.script("DeleteAdaptation", overloaded(1.0))
    result = run_bench(settings(server, ClosedLoop(1), duration=0.1, adaptations=100))
    assert len(server.kept) == 1
    assert result.calls["DeleteAdaptation", "OK"] == 99


def test_what_was_measured_is_told_when_the_server_dies_on_the_way(server):
    registry = CollectorRegistry()
    exporter, thread = start_http_server(0, "127.0.0.1", registry)

    def die():
        exporter.shutdown()
        exporter.server_close()
        thread.join()
        server.script("Predict", *[Failure(StatusCode.UNAVAILABLE)] * 100_000)

    url = f"http://127.0.0.1:{exporter.server_port}/metrics"
    with after_predicts(server, 20, die):
        result = run_bench(settings(server, ClosedLoop(1), duration=1.5, metrics_url=url))
    (load,) = result.loads
    assert load.rpcs["Predict"].outcomes["OK"] >= 18
    assert set(result.failures) == {"UNAVAILABLE"}
    assert load.server == ServerUsage(
        unseen=f"metrics: can't read {url}: <urlopen error [Errno 111] Connection refused>"
    )


def test_a_process_that_was_killed_between_two_loads_is_told_of(server):
    what = settings(server, ClosedLoop(1))
    with Workers(Job(what, None, "run", ())) as workers:
        (process,) = multiprocessing.active_children()
        process.kill()
        process.join()
        with pytest.raises(InnerloopError, match="a process that makes load has ended"):
            workers.start(shares(ClosedLoop(1), what, 0))


def test_live_adaptations_stay_when_that_is_wanted(server):
    run_bench(settings(server, ClosedLoop(1), duration=0.1, keep_adaptations=True))
    assert len(server.kept) == 4

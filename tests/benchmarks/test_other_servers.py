"""The comparison with other servers measures what it says."""

import sys
import time
from concurrent import futures
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
import torch
from load import Endpoint, observe
from processes import Command
from table import OURS, compare
from task import make_tasks, right_answers, write_model

from innerloop_learner import Query, Support
from innerloop_learner.bundle import load_bundle
from innerloop_learner.inputs import normalise

SERVICE_SECONDS = 0.02


@pytest.fixture
def slow_server():
    """A gRPC server with two workers that echoes after a while, and refuses b"bad"."""

    def echo(request: bytes, context: grpc.ServicerContext) -> bytes:
        if request == b"bad":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "bad")
        time.sleep(SERVICE_SECONDS)
        return request

    server = grpc.server(futures.ThreadPoolExecutor(2))
    handlers = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Test", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield Endpoint("grpc", (port,), "/Test/Echo")
    server.stop(None).wait()


def test_clients_wait_for_their_answer_before_they_ask_again(slow_server):
    begin = time.monotonic() + 0.3
    seen = observe(slow_server, [b"good"], [0, 1, 2, 3], begin, begin + 1)
    # Two workers and four clients: each answer takes two turns.
    assert len(seen.seconds) <= 2 / SERVICE_SECONDS
    assert np.median(seen.seconds) > 1.8 * SERVICE_SECONDS
    assert not seen.errors


def test_refused_requests_are_errors_and_no_answers(slow_server):
    begin = time.monotonic()
    seen = observe(slow_server, [b"bad"], [0], begin, begin + 0.5)
    assert seen.errors
    assert not seen.seconds


def test_a_stopped_server_leaves_no_process_behind(tmp_path):
    child = "import time; time.sleep(60)"
    parent = (
        "import pathlib, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True)\n"
        "pathlib.Path(sys.argv[1]).write_text(str(child.pid))\n"
        "time.sleep(60)"
    )
    started = tmp_path / "child"
    with Command([sys.executable, "-c", parent, str(started)], tmp_path / "log", {}):
        while not (started.is_file() and started.read_text()):
            time.sleep(0.02)
        pid = int(started.read_text())
        assert psutil.pid_exists(pid)
    give_up = time.monotonic() + 5
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < give_up
        time.sleep(0.02)


def test_the_right_answers_are_those_of_the_bundle(tmp_path: Path):
    write_model(tmp_path, tmp_path / "weights.pt")
    task = make_tasks()[0]
    bundle = load_bundle(tmp_path / "maml")
    labels = torch.from_numpy(task.labels)[None]
    x, queries = (
        normalise(bundle.learner.spec.input, torch.from_numpy(raw))[None] for raw in (task.support, task.query)
    )
    support = Support(x, labels, torch.ones_like(labels).bool(), torch.tensor([5]), 5)
    query = Query(queries, torch.ones(1, len(task.query), dtype=torch.bool))
    with torch.no_grad():
        state = bundle.learner.adapt(bundle.params, support).state
        probabilities = bundle.learner.predict(bundle.params, state, query)[0].softmax(-1)
    np.testing.assert_allclose(probabilities, right_answers([task], tmp_path / "weights.pt")[0], atol=1e-3)


def test_each_number_of_clients_has_its_own_best_peer_and_failed_ones_do_not_count():
    def figures(*rates: float) -> dict:
        points = dict(zip(("1", "8"), ({"per_second": rate} for rate in rates), strict=True))
        return {"AdaptPredict": {"clients": points}}

    ours = figures(10, 30) | {"Predict": {"clients": {"1": {"per_second": 50}}}}
    servers = {OURS: ours, "a": figures(5, 5), "b": figures(4, 15), "c": {"failed": "not installed"}}
    assert compare(servers) == {
        "1": {"best_peer": "a", "times_best_peer": 2, "predict_times_adapt_predict": 5},
        "8": {"best_peer": "b", "times_best_peer": 2},
    }

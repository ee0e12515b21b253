"""Starting and stopping: nothing is lost, and what can't work is refused."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import grpc
import pytest
from examples import adapt_request, lasting_request, predict_request
from grpc import StatusCode
from PIL import Image
from running import Metrics, connect, starting, wait_until
from wire import images, problem

from innerloop.v1.adaptation_pb2 import PredictRequest
from innerloop.v1.model_pb2 import ListModelsRequest
from innerloop_command.server_process import ServerProcess, ServerStartError

pytestmark = pytest.mark.with_and_without_front_ends


@pytest.mark.rarely("alone")
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_what_was_accepted_is_answered_before_the_server_stops_and_what_is_new_is_refused_with_a_reason(
    start_server, fails, number
):
    with start_server() as server, connect(server) as client:
        client.adaptations.Adapt(adapt_request())
        running = client.adaptations.Adapt.future(lasting_request(1000))
        waiting = [client.adaptations.Adapt.future(lasting_request(steps)) for steps in (100, 101)]
        metrics = Metrics(server.metrics_url)
        wait_until(lambda: metrics("innerloop_queue_depth", model="gradients", operation="adapt") == 2)
        server.process.send_signal(number)
        wait_until(lambda: server.has_logged("stopping"))
        refused = fails(client.adaptations.Adapt, adapt_request())
        assert (refused.code, refused.reason) == (StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
        assert refused.retry_after > 0
        assert running.result().adaptation.steps == 1000
        assert [call.result().adaptation.steps for call in waiting] == [100, 101]
        assert server.process.wait(20) == 0


@pytest.mark.rarely("alone")
def test_a_stop_under_load_loses_nothing_that_was_accepted(start_server):
    outcomes = Counter()

    def keep_calling(seed):
        with connect(server, options=[("grpc.use_local_subchannel_pool", 1)]) as client:
            while True:
                try:
                    adaptation = client.adaptations.Adapt(adapt_request(seed=seed)).adaptation
                    client.adaptations.Predict(predict_request(adaptation.id))
                    outcomes["answered"] += 1
                except grpc.RpcError as error:
                    found = problem(error)
                    outcomes[found.code, found.reason] += 1
                    return

    with start_server() as server, ThreadPoolExecutor(8) as pool:
        callers = [pool.submit(keep_calling, seed) for seed in range(8)]
        wait_until(lambda: outcomes["answered"] > 50)
        code = server.stop()
        for caller in callers:
            caller.result()
    assert code == 0
    assert set(outcomes) == {"answered", (StatusCode.UNAVAILABLE, "SHUTTING_DOWN")}


@pytest.mark.rarely("front ends")
def test_the_grace_period_ends_the_wait_for_requests_that_take_too_long(start_server):
    with start_server(grace_seconds=0.2) as server, connect(server) as client:
        client.adaptations.Adapt(adapt_request())
        running = client.adaptations.Adapt.future(lasting_request(20_000))
        client.models.ListModels(ListModelsRequest())  # comes after the request before it
        assert server.stop() == 1
        assert running.exception().code() in (StatusCode.UNAVAILABLE, StatusCode.CANCELLED)


@pytest.mark.rarely("alone")
def test_a_second_signal_stops_at_once(start_server):
    with start_server() as server, connect(server) as client:
        client.adaptations.Adapt(adapt_request())
        client.adaptations.Adapt.future(lasting_request(20_000))
        client.models.ListModels(ListModelsRequest())  # comes after the request before it
        server.process.send_signal(signal.SIGINT)
        wait_until(lambda: server.has_logged("stopping"))
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) == 1


@pytest.mark.rarely("front ends")
def test_a_server_that_is_still_loading_stops_too(start_server, write_waiting_bundle, tmp_path):
    write_waiting_bundle(tmp_path / "slow")
    server = start_server(tmp_path)
    with starting(server):
        assert server.stop() == 0


@pytest.mark.rarely("front ends")  # test_front_ends looks at the port
@pytest.mark.parametrize("setting", ["port", pytest.param("metrics_port", marks=pytest.mark.slow)])
def test_a_port_that_is_taken_is_refused_and_not_shared(server, models_folder, setting):
    second = ServerProcess(models_folder, threads=1, lanes=1, **{setting: getattr(server, setting)})
    with pytest.raises(ServerStartError, match=f"{setting}: can't listen on") as refused, second:
        pytest.fail("two servers share a port")
    assert second.process.returncode == 2
    assert len(str(refused.value).splitlines()) == 2, "gRPC adds none of its own lines"


@pytest.mark.rarely("front ends")
def test_a_server_that_can_not_say_that_it_is_ready_ends_and_says_why(models_folder, tmp_path, frontends):
    command = [sys.executable, "-m", "innerloop_server", "serve", "--models", models_folder, "--threads", "1"]
    command += [
        "--lanes",
        "1",
        "--port",
        "0",
        "--metrics-port",
        "0",
        "--ready-file",
        tmp_path,
        "--frontends",
        str(frontends),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 2
    assert f"innerloop serve: ready_file: can't write {tmp_path} (Is a directory)" in result.stderr


def test_every_line_of_the_log_is_json_that_names_the_request(server, client):
    adaptation = client.adaptations.Adapt(adapt_request(), metadata=(("innerloop-request-id", "find-me"),)).adaptation
    huge = BytesIO()
    Image.new("1", (10_000, 10_000)).save(huge, "PNG")  # Pillow warns of it
    with pytest.raises(grpc.RpcError):
        client.adaptations.Predict(PredictRequest(adaptation_id=adaptation.id, query=images(huge.getvalue())))
    wait_until(lambda: "DecompressionBombWarning" in server.log)
    wait_until(lambda: "find-me" in server.log)
    lines = [json.loads(line) for line in server.log.splitlines()]
    (line,) = [line for line in lines if line.get("request_id") == "find-me"]
    assert (line["rpc"], line["model"], line["status"], line["level"]) == ("Adapt", "prototypes", "OK", "info")
    assert line["milliseconds"] > 0


LATE_WORKERS = """
import sys, time
from pathlib import Path

while any("worker_process" in word for word in sys.orig_argv) and not Path({go!r}).exists():
    time.sleep(0.01)
"""


@pytest.mark.rarely("front ends")
def test_a_model_answers_before_the_workers_have_started(start_server, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(LATE_WORKERS.format(go=str(tmp_path / "go")))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    server = start_server(lanes=2)
    with starting(server), connect(server) as client:
        wait_until(lambda: server.log.count('"event": "model ready"') == 4)
        adaptation = client.adaptations.Adapt(adapt_request()).adaptation
        assert client.adaptations.Predict(predict_request(adaptation.id))
        assert not server.has_logged("ready")
        (tmp_path / "go").touch()
        wait_until(lambda: server.has_logged("ready"))

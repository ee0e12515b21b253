"""Processes that answer gRPC for the one that computes: they share a port, may die, and take nothing with them."""

import json
import os
import shutil
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
import trustme
from bundles import PROTOTYPES, write_bundle
from examples import adapt_request, lasting_request, pictures, predict_request
from forks import ServerProcess
from grpc import StatusCode
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from running import Metrics, connect, wait_until
from wire import array, inputs, problem

from innerloop import Client
from innerloop.v1 import adaptation_pb2 as pb
from innerloop.v1 import model_pb2
from innerloop_command.server_process import ServerStartError

OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
CLIENTS = 12


@pytest.fixture(scope="module")
def frontends():
    return 2


@pytest.fixture(scope="module")
def folder(models_folder, tmp_path_factory):
    """Bundles that a test may add to."""
    return shutil.copytree(models_folder, tmp_path_factory.mktemp("own") / "models")


@pytest.fixture(scope="module")
def server(start_server, folder):
    """A server with two front ends of little memory, whose models can be changed."""
    with start_server(folder, admin=True, frontend_bytes="1MiB") as server:
        yield server


def front_ends(server):
    """Process ids of a server's front ends."""
    pid = server.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid):
    """Whether a process runs; one that has ended may stay for whoever started it to take note."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def wait_until_replaced(server, pid):
    """Wait until a front end that was killed has a successor that answers."""

    def replaced():
        written = server.log.rpartition("\n")[0]  # the last line may be there in part
        lines = [json.loads(line) for line in written.splitlines()]
        started = {line["pid"] for line in lines if line["event"] == "front end started"}
        running = set(front_ends(server))
        return pid not in running and len(running) == 2 and running <= started

    wait_until(replaced)


def float_request(adaptation_id, count):
    """A Predict request that takes 256 bytes a query."""
    query = pictures(count).astype(np.float32)
    return pb.PredictRequest(adaptation_id=adaptation_id, query=inputs(query))


def ports_of_callers(pid):
    """Ports from which connections to a front end come."""
    connections = psutil.Process(pid).net_connections("tcp")
    return {connection.raddr.port for connection in connections if connection.status == psutil.CONN_ESTABLISHED}


@contextmanager
def clients_of(server, count=CLIENTS):
    """Clients on connections of their own, each with its `port`."""
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(server, options=OWN_CONNECTION)) for _ in range(count)]
        for client in clients:
            before = set().union(*map(ports_of_callers, front_ends(server)))
            client.models.ListModels(model_pb2.ListModelsRequest())
            (client.port,) = set().union(*map(ports_of_callers, front_ends(server))) - before
        yield clients


def clients_on(clients, pid):
    """Those of the clients whose connection a front end has."""
    ports = ports_of_callers(pid)
    return {client for client in clients if client.port in ports}


def test_connections_are_shared_out_among_processes_that_know_nothing_of_torch(server):
    assert len(front_ends(server)) == 2
    for pid in front_ends(server):
        assert "torch" not in Path(f"/proc/{pid}/maps").read_text()
    with clients_of(server, 24) as clients:
        shares = [clients_on(clients, pid) for pid in front_ends(server)]
    assert all(shares)
    assert not shares[0] & shares[1]


def test_an_adaptation_is_there_for_every_front_end(server):
    with clients_of(server) as clients:
        adaptation = clients[0].adaptations.Adapt(adapt_request()).adaptation
        answers = [client.adaptations.Predict(predict_request(adaptation.id)).predictions for client in clients]
        assert all(answer == answers[0] for answer in answers)
        clients[1].adaptations.DeleteAdaptation(pb.DeleteAdaptationRequest(adaptation_id=adaptation.id))
        for client in clients:
            with pytest.raises(grpc.RpcError) as refused:
                client.adaptations.Predict(predict_request(adaptation.id))
            assert problem(refused.value).reason == "ADAPTATION_NOT_FOUND"


def test_a_request_that_is_repeated_on_another_connection_adapts_once(server):
    metrics = Metrics(server.metrics_url)
    before = metrics("innerloop_adaptations_created_total", model="gradients")
    request = lasting_request(300, request_id="on every connection")
    with clients_of(server) as clients, ThreadPoolExecutor(CLIENTS) as pool:
        made = list(pool.map(lambda client: client.adaptations.Adapt(request).adaptation.id, clients))
        again = clients[-1].adaptations.Adapt(request).adaptation.id
    assert {*made, again} == {again}
    assert metrics("innerloop_adaptations_created_total", model="gradients") == before + 1


def test_models_come_and_go_for_every_front_end(server, folder):
    write_bundle(folder / "passing", PROTOTYPES)
    load, unload = model_pb2.LoadModelRequest(model="passing"), model_pb2.UnloadModelRequest(model="passing")
    with clients_of(server) as clients:
        for changer in clients[:3]:
            changer.models.LoadModel(load)
            made = [client.adaptations.Adapt(adapt_request("passing")).adaptation.id for client in clients]
            changer.models.UnloadModel(unload)
            for client, adaptation_id in zip(clients, made, strict=True):
                for call, request, reason in (
                    (client.adaptations.Adapt, adapt_request("passing"), "MODEL_NOT_FOUND"),
                    (client.adaptations.Predict, predict_request(adaptation_id), "ADAPTATION_EVICTED"),
                ):
                    with pytest.raises(grpc.RpcError) as refused:
                        call(request)
                    assert problem(refused.value).reason == reason


def test_a_front_end_that_is_killed_is_replaced_and_takes_only_its_own_connections_with_it(server):
    metrics = Metrics(server.metrics_url)
    outcomes, done, counts = Counter(), threading.Event(), []

    def keep_calling(client, adaptation_id):
        while not done.is_set():
            try:
                client.adaptations.Predict(predict_request(adaptation_id), timeout=10)
                outcomes[client, "OK"] += 1
            except grpc.RpcError as error:
                outcomes[client, error.code()] += 1

    def answered():
        return metrics("innerloop_requests_total", rpc="Predict", model="prototypes", status="OK")

    with clients_of(server) as clients, ThreadPoolExecutor(CLIENTS) as pool:
        adaptation = clients[0].adaptations.Adapt(adapt_request()).adaptation
        victim = front_ends(server)[0]
        hit = clients_on(clients, victim)
        assert 0 < len(hit) < CLIENTS
        restarts = metrics("innerloop_frontend_restarts_total")
        for client in clients:
            pool.submit(keep_calling, client, adaptation.id)
        try:
            wait_until(lambda: all(outcomes[client, "OK"] > 20 for client in clients))
            counts.append(answered())
            os.kill(victim, signal.SIGKILL)
            counts += [answered() for _ in range(5)]
            wait_until_replaced(server, victim)
            before = outcomes.copy()
            wait_until(lambda: all(outcomes[client, "OK"] > before[client, "OK"] + 20 for client in clients))
            counts.append(answered())
        finally:
            done.set()
    assert counts == sorted(counts)
    assert counts[0] >= 20 * CLIENTS
    failures = {client: code for client, code in outcomes if code != "OK"}
    assert set(failures) <= hit, "and of those, only the ones that had just asked"
    assert set(failures.values()) <= {StatusCode.UNAVAILABLE}
    assert victim not in front_ends(server)
    assert len(front_ends(server)) == 2
    assert metrics("innerloop_frontend_restarts_total") == restarts + 1
    maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert maps.count("innerloop-frontend") == 2, "the memory shared with the one that was killed is freed"


def test_callers_of_the_sdk_never_notice_that_front_ends_die(server):
    support, queries = pictures(3), pictures(4, seed=1)

    def keep_calling(_):
        with Client(server.target) as client:
            adaptation = client.adapt("prototypes", support, ["a", "b", "c"])
            first = [answer.probabilities for answer in adaptation.predict(queries)]
            while not done.is_set():
                assert [answer.probabilities for answer in adaptation.predict(queries)] == first
                client.adapt("prototypes", support, ["a", "b", "c"])

    done = threading.Event()
    with ThreadPoolExecutor(4) as pool:
        callers = [pool.submit(keep_calling, number) for number in range(4)]
        try:
            for pid in front_ends(server):
                os.kill(pid, signal.SIGKILL)
                wait_until_replaced(server, pid)
        finally:
            done.set()
        for caller in callers:
            caller.result()


def test_what_a_killed_front_end_had_asked_for_is_not_computed(server):
    metrics = Metrics(server.metrics_url)
    with clients_of(server, 24) as clients:
        victim = front_ends(server)[0]
        hit = clients_on(clients, victim)
        spared = [client for client in clients if client not in hit]
        running = spared[0].adaptations.Adapt.future(lasting_request(1000))
        wait_until(lambda: metrics("innerloop_queue_depth", model="gradients", operation="adapt") == 0)
        # Fewer than a batch takes: a full one would be handed over before the running one ends.
        lost = [client.adaptations.Adapt.future(lasting_request(50_000)) for client in list(hit)[:4]]
        wait_until(lambda: metrics("innerloop_queue_depth", model="gradients", operation="adapt") == len(lost))
        os.kill(victim, signal.SIGKILL)
        assert {call.exception().code() for call in lost} == {StatusCode.UNAVAILABLE}
        wait_until(lambda: metrics("innerloop_queue_depth", model="gradients", operation="adapt") == 0)
        assert running.result(), "a request that another front end asked for goes on"
    wait_until_replaced(server, victim)


def test_signals_to_stop_are_for_the_engine_process(server, client):
    before = front_ends(server)
    for pid in before:
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
    for _ in range(10):
        client.models.ListModels(model_pb2.ListModelsRequest())
    assert front_ends(server) == before


def test_requests_as_large_as_the_memory_come_one_after_the_other(client):
    adaptation = client.adaptations.Adapt(adapt_request()).adaptation
    count = 3800  # 973 kB of 1 MiB
    for _ in range(5):
        predictions = client.adaptations.Predict(float_request(adaptation.id, count)).predictions
        assert array(predictions.probabilities).shape == (count, 3)


def test_large_answers_come_through_shared_memory_as_small_ones_do_in_messages(client):
    request = adapt_request(ways=30)
    adaptation = client.adaptations.Adapt(request).adaptation
    ask = predict_request(adaptation.id, count=2000, return_logits=True)
    together = client.adaptations.Predict(ask).predictions
    query = np.frombuffer(ask.query.tensor.data, np.uint8).reshape(ask.query.tensor.shape)
    for row in (0, 1999):
        single = pb.PredictRequest(adaptation_id=adaptation.id, query=inputs(query[row : row + 1]), return_logits=True)
        alone = client.adaptations.Predict(single).predictions
        np.testing.assert_allclose(array(together.logits)[row], array(alone.logits)[0], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(array(together.probabilities)[row], array(alone.probabilities)[0], atol=1e-4)


def test_when_the_memory_is_full_requests_are_refused_with_a_time_to_try_again(client, fails, metrics):
    adaptation = client.adaptations.Adapt(adapt_request("gradients")).adaptation
    running = client.adaptations.Adapt.future(lasting_request(500))
    wait_until(lambda: metrics("innerloop_queue_depth", model="gradients", operation="adapt") == 0)
    first = client.adaptations.Predict.future(float_request(adaptation.id, 2500))
    wait_until(lambda: metrics("innerloop_queue_depth", model="gradients", operation="predict") == 1)
    problem = fails(client.adaptations.Predict, float_request(adaptation.id, 2500))
    assert (problem.code, problem.reason) == (StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert problem.retry_after > 0
    assert running.result()
    assert first.result()


def test_a_request_larger_than_the_memory_is_refused_for_good(client, fails):
    adaptation = client.adaptations.Adapt(adapt_request()).adaptation
    problem = fails(client.adaptations.Predict, float_request(adaptation.id, 9999))
    assert problem.code is StatusCode.INVALID_ARGUMENT
    assert "send fewer" in problem.fields["query"]


def test_front_ends_end_with_the_engine_process(start_server):
    with start_server() as server:
        children = front_ends(server)
        server.process.send_signal(signal.SIGKILL)
        wait_until(lambda: not any(map(alive, children)), 5)
        server.process.wait()


@pytest.mark.parametrize("others", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_servers_do_not_share_a_port(server, models_folder, others):
    second = ServerProcess(models_folder, threads=1, lanes=1, port=server.port, frontends=others)
    with pytest.raises(ServerStartError, match=r"port: can't listen on 127\.0\.0\.1:"), second:
        pytest.fail("two servers share a port")
    assert second.process.returncode == 2


@pytest.mark.parametrize(
    "host", [*(pytest.param(host, marks=pytest.mark.slow) for host in ("localhost", "0.0.0.0")), "::"]
)
def test_front_ends_listen_on_every_address_of_a_host(start_server, host):
    with start_server(host=host, insecure=True) as server, clients_of(server, 2) as clients:
        assert clients[0].adaptations.Adapt(adapt_request())
        assert server.stop() == 0


def test_a_front_end_is_replaced_though_the_model_folder_is_gone(start_server, models_folder, tmp_path):
    folder = shutil.copytree(models_folder, tmp_path / "models")
    with start_server(folder) as server:
        shutil.rmtree(folder)
        victim = front_ends(server)[0]
        os.kill(victim, signal.SIGKILL)
        wait_until_replaced(server, victim)
        with connect(server) as client:
            assert client.adaptations.Adapt(adapt_request())


def test_a_front_end_that_can_not_start_is_tried_again_until_it_can(start_server, tmp_path):
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    key, chain = tmp_path / "key.pem", tmp_path / "certificate.pem"
    certificate.private_key_pem.write_to_path(key)
    certificate.cert_chain_pems[0].write_to_path(chain)
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    with start_server(tls_key=key, tls_certificate=chain) as server:
        metrics = Metrics(server.metrics_url)
        good = key.read_bytes()
        key.write_text("nonsense")
        os.kill(front_ends(server)[0], signal.SIGKILL)
        wait_until(lambda: metrics("innerloop_frontend_restarts_total") >= 2)
        assert metrics("innerloop_frontends") == 1
        with connect(server, credentials) as client:
            assert client.adaptations.Adapt(adapt_request())
        key.write_bytes(good)
        wait_until(lambda: metrics("innerloop_frontends") == 2)
        assert "the TLS files don't fit together" in server.log


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["tls_key", "tls_certificate"], "the TLS files don't fit together"),
        pytest.param(["api_keys"], "api_keys: .* not valid TOML", marks=pytest.mark.slow),
    ],
)
def test_a_configuration_that_no_front_end_can_start_with_is_refused(models_folder, tmp_path, settings, words):
    (tmp_path / "file").write_text("nonsense")
    files = dict.fromkeys(settings, tmp_path / "file")
    broken = ServerProcess(models_folder, threads=1, lanes=1, frontends=2, **files)
    with pytest.raises(ServerStartError, match=words), broken:
        pytest.fail("it started")
    assert broken.process.returncode == 2


def statuses(client):
    """How the server and a model are, by what the health service says."""
    stub = HealthStub(client.channel)
    return {stub.Check(HealthCheckRequest(service=name)).status for name in ("", "innerloop.v1.models/prototypes")}


@pytest.mark.slow
def test_nothing_serves_while_the_engine_process_is_stopped_and_all_does_when_it_goes_on(server):
    with connect(server) as client:
        assert statuses(client) == {HealthCheckResponse.SERVING}
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            wait_until(lambda: statuses(client) == {HealthCheckResponse.NOT_SERVING})
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
        wait_until(lambda: statuses(client) == {HealthCheckResponse.SERVING})
        time.sleep(5)
        assert len(front_ends(server)) == 2, "nobody is replaced for that"
        assert client.adaptations.Adapt(adapt_request())


@pytest.mark.slow
def test_a_front_end_that_is_stopped_is_replaced(server):
    victim = front_ends(server)[0]
    os.kill(victim, signal.SIGSTOP)
    wait_until_replaced(server, victim)

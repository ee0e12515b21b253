"""Every reason an error can carry, as a client meets it."""

import os
from pathlib import Path

import numpy as np
import pytest
from examples import adapt_request, predict_request
from grpc import StatusCode
from running import connect, wait_until
from wire import images, inputs

from innerloop.v1 import adaptation_pb2 as pb
from innerloop.v1 import model_pb2
from innerloop_server.domain.callers import Scope
from innerloop_server.transport.grpc.gate import NEEDED

pytestmark = pytest.mark.with_and_without_front_ends


def test_an_invalid_request_names_every_field_that_is_wrong(client, fails):
    request = adapt_request(options=pb.AdaptOptions(steps=9))
    request.support.inputs.CopyFrom(inputs(np.zeros((3, 2, 2), np.uint8)))
    del request.support.labels.values[1:]
    problem = fails(client.adaptations.Adapt, request)
    assert (problem.code, problem.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert set(problem.fields) == {"options.steps", "support.inputs.tensor.shape", "support.labels"}


def test_a_damaged_image_is_named_by_its_index(client, fails):
    adaptation = client.adaptations.Adapt(adapt_request()).adaptation
    request = pb.PredictRequest(adaptation_id=adaptation.id, query=images(b"nonsense"))
    assert set(fails(client.adaptations.Predict, request).fields) == {"query.images.files[0]"}


@pytest.mark.parametrize("token", ["x", "AAAA", "not a token", "ä" * 100, "__________8="])
def test_a_page_token_of_ones_own_making_is_refused(client, fails, token):
    problem = fails(client.adaptations.ListAdaptations, pb.ListAdaptationsRequest(page_token=token))
    assert set(problem.fields) == {"page_token"}
    problem = fails(client.adaptations.ListAdaptations, pb.ListAdaptationsRequest(page_size=-1))
    assert set(problem.fields) == {"page_size"}


STANDARD = [
    ("/grpc.health.v1.Health/Check", "unary_unary", "HealthCheckRequest"),
    ("/grpc.health.v1.Health/Watch", "unary_stream", "HealthCheckRequest"),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "stream_stream", "ServerReflectionRequest"),
]


@pytest.mark.parametrize(("method", "arity", "kind"), STANDARD)
def test_standard_services_refuse_bytes_that_are_no_message_as_ours_do(server, client, fails, method, arity, kind):
    call = getattr(client.channel, arity)(method)

    def ask(content):
        answered = call(iter([content]) if arity == "stream_stream" else content, timeout=20)
        return answered if arity == "unary_unary" else list(answered)

    problem = fails(ask, b"\xff\xff")
    assert (problem.code, problem.fields) == (StatusCode.INVALID_ARGUMENT, {"message": f"is not a {kind}"})
    assert "Traceback" not in server.log


def test_a_small_message_that_would_take_much_memory_is_refused(server, client, fails):
    request = pb.AdaptRequest(model="prototypes", support=pb.Support(labels=pb.Labels(values=[""] * 2**22)))
    before = resident(server.process.pid)
    for _ in range(5):
        assert set(fails(client.adaptations.Adapt, request).fields) == {"message"}
    assert resident(server.process.pid) - before < 100 * 2**20
    problem = fails(client.models.GetModel, model_pb2.GetModelRequest(model="x" * 2**22))
    assert set(problem.fields) == {"message"}


def resident(pid):
    """Bytes of memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("descriptor", [pb.DESCRIPTOR, model_pb2.DESCRIPTOR], ids=["adaptation", "model"])
def test_bytes_that_are_no_message_are_refused_without_a_word_of_the_code(server, client, fails, metrics, descriptor):
    (service,) = descriptor.services_by_name.values()
    for method in service.methods:
        if method.client_streaming:
            continue
        call = client.channel.unary_unary(f"/{service.full_name}/{method.name}")
        problem = fails(call, b"\xff\xff")
        disabled = "DOWNLOADS_DISABLED" if method.name == "DownloadAdaptation" else "ADMIN_DISABLED"
        if NEEDED[method.name] is Scope.ADMIN or disabled == "DOWNLOADS_DISABLED":  # who may not call it learns no more
            assert (problem.code, problem.reason) == (StatusCode.PERMISSION_DENIED, disabled)
        else:
            assert (problem.code, problem.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
            assert problem.fields == {"message": f"is not a {method.input_type.name}"}
        labels = {"rpc": method.name, "model": "", "status": problem.code.name}
        wait_until(lambda labels=labels: metrics("innerloop_requests_total", **labels) > 0)
    assert "exception" not in server.log


@pytest.mark.parametrize("name", ["", "nothing", "../prototypes", "x" * 100_000])
def test_unknown_models(client, fails, name):
    for call in (
        lambda: fails(client.adaptations.Adapt, adapt_request(name)),
        lambda: fails(client.adaptations.AdaptPredict, pb.AdaptPredictRequest(model=name)),
        lambda: fails(client.models.GetModel, model_pb2.GetModelRequest(model=name)),
    ):
        problem = call()
        assert (problem.code, problem.reason) == (StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")


@pytest.mark.parametrize("adaptation_id", ["", "nothing", "x" * 100_000])
def test_unknown_adaptations(client, fails, adaptation_id):
    for method, kind in (
        (client.adaptations.Predict, pb.PredictRequest),
        (client.adaptations.GetAdaptation, pb.GetAdaptationRequest),
        (client.adaptations.DeleteAdaptation, pb.DeleteAdaptationRequest),
    ):
        problem = fails(method, kind(adaptation_id=adaptation_id))
        assert (problem.code, problem.reason) == (StatusCode.NOT_FOUND, "ADAPTATION_NOT_FOUND")


def test_loading_and_unloading_are_not_for_everybody(client, fails):
    for method, request in (
        (client.models.LoadModel, model_pb2.LoadModelRequest(model="prototypes")),
        (client.models.UnloadModel, model_pb2.UnloadModelRequest(model="prototypes")),
    ):
        problem = fails(method, request)
        assert (problem.code, problem.reason) == (StatusCode.PERMISSION_DENIED, "ADMIN_DISABLED")


def test_adaptations_are_not_given_away_unless_the_operator_says_so(client, fails):
    made = client.adaptations.Adapt(adapt_request()).adaptation
    for adaptation_id in (made.id, "unknown"):
        request = pb.DownloadAdaptationRequest(adaptation_id=adaptation_id)
        problem = fails(lambda request: list(client.adaptations.DownloadAdaptation(request)), request)
        assert (problem.code, problem.reason) == (StatusCode.PERMISSION_DENIED, "DOWNLOADS_DISABLED")
        assert "--downloads" in problem.message


def test_an_adaptation_that_diverges_says_so(client, fails):
    query = np.full((2, 1), 1e38, np.float32)
    request = pb.AdaptPredictRequest(model="regression", query=inputs(query))
    request.support.inputs.CopyFrom(inputs(query))
    request.support.targets.CopyFrom(inputs(query).tensor)
    problem = fails(client.adaptations.AdaptPredict, request)
    assert (problem.code, problem.reason) == (StatusCode.FAILED_PRECONDITION, "ADAPTATION_DIVERGED")


def test_the_server_answers_under_the_clients_request_id_or_one_of_its_own(client, fails):
    def named(request_id):
        metadata = (("innerloop-request-id", request_id),)
        return fails(client.adaptations.Adapt, adapt_request("nothing"), metadata=metadata).request_id

    assert named("my-request.1") == "my-request.1"
    for unusable in ("", "white space", "x" * 65, 'log"injection'):
        made = named(unusable)
        assert made != unusable
        assert made
    _, call = client.adaptations.Adapt.with_call(adapt_request(), metadata=(("innerloop-request-id", "good"),))
    assert dict(call.trailing_metadata())["innerloop-request-id"] == "good"


@pytest.mark.rarely("front ends")
def test_a_message_larger_than_allowed_is_refused_and_the_server_lives_on(start_server, fails):
    with start_server(max_message_bytes="64KiB") as server, connect(server) as client:
        adaptation = client.adaptations.Adapt(adapt_request()).adaptation
        problem = fails(client.adaptations.Predict, predict_request(adaptation.id, count=2000))
        assert problem.code is StatusCode.RESOURCE_EXHAUSTED
        assert client.adaptations.Predict(predict_request(adaptation.id))

"""Failed calls raise typed errors that say what, why, and which call it was."""

import grpc
import numpy as np
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import BadRequest
from scripted_server import Failure, bad_request, reason, retry_after
from twins import collect

import innerloop

IMAGES = np.zeros((2, 1, 28, 28), np.uint8)
Code = grpc.StatusCode


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (Failure(Code.NOT_FOUND, details=(reason("MODEL_NOT_FOUND"),)), innerloop.ModelNotFoundError),
        (Failure(Code.NOT_FOUND, details=(reason("ADAPTATION_NOT_FOUND"),)), innerloop.AdaptationNotFoundError),
        (Failure(Code.NOT_FOUND, details=(reason("ADAPTATION_EVICTED"),)), innerloop.AdaptationEvictedError),
        (Failure(Code.NOT_FOUND), innerloop.NotFoundError),
        (Failure(Code.FAILED_PRECONDITION, details=(reason("MODEL_LOADING"),)), innerloop.ModelLoadingError),
        (Failure(Code.FAILED_PRECONDITION), innerloop.FailedPreconditionError),
        (Failure(Code.RESOURCE_EXHAUSTED, details=(reason("OVERLOADED"),)), innerloop.OverloadedError),
        (Failure(Code.RESOURCE_EXHAUSTED, details=(retry_after(0.5),)), innerloop.OverloadedError),
        (Failure(Code.CANCELLED), innerloop.OverloadedError),
        (Failure(Code.RESOURCE_EXHAUSTED), innerloop.ResourceExhaustedError),
        (Failure(Code.UNAVAILABLE, details=(reason("SHUTTING_DOWN"),)), innerloop.UnavailableError),
        (Failure(Code.DEADLINE_EXCEEDED), innerloop.DeadlineExceededError),
        (Failure(Code.UNAUTHENTICATED), innerloop.UnauthenticatedError),
        (Failure(Code.PERMISSION_DENIED), innerloop.PermissionDeniedError),
        (Failure(Code.INTERNAL), innerloop.InternalError),
        (Failure(Code.UNKNOWN), innerloop.InternalError),
        (Failure(Code.UNIMPLEMENTED), innerloop.InnerloopError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
async def test_each_kind_of_failure_has_its_error(make_client, server, failure, expected):
    server.script("GetModel", failure)
    with pytest.raises(innerloop.InnerloopError) as caught:
        await make_client(retries=0).model("grey")
    error = caught.value
    assert type(error) is expected
    assert (error.code, error.message) == (failure.code, "scripted")
    assert error.request_id == server.received[0].request_id
    given_reason = next((detail.reason for detail in failure.details if hasattr(detail, "reason")), "")
    assert error.reason == given_reason
    assert error.request_id in str(error)
    assert given_reason in str(error)


async def test_invalid_arguments_name_the_fields(client, server):
    server.script("Adapt", bad_request("support.labels", "3 labels for 2 examples"))
    with pytest.raises(innerloop.InvalidArgumentError, match=r"support\.labels: 3 labels for 2 examples") as caught:
        await client.adapt("grey", IMAGES, ["a", "b"])
    assert caught.value.violations == (innerloop.FieldViolation("support.labels", "3 labels for 2 examples"),)
    assert isinstance(caught.value, ValueError)


async def test_a_refused_file_is_named_by_its_path_and_other_examples_by_their_label(client, server, tmp_path):
    file = tmp_path / "cat.png"
    file.write_bytes(b"content")
    for position, name in ((0, r"cat\.png': is damaged"), (1, r"support example 1 \(label 'dog'\): is damaged")):
        server.script("Adapt", bad_request(f"support.inputs.images.files[{position}]", "is damaged"))
        with pytest.raises(innerloop.InvalidArgumentError, match=name) as caught:
            await client.adapt("grey", [file, b"content"], ["cat", "dog"])
        assert "files[" not in str(caught.value)
    server.script("answer", bad_request("query.images.files[0]", "is damaged"))
    adaptation = await client.adapt("grey", [file, b"content"], ["cat", "dog"])
    with pytest.raises(innerloop.InvalidArgumentError, match=r"cat\.png': is damaged"):
        await collect(adaptation.predict_stream([[file]]))


async def test_all_refused_files_are_named_even_where_the_servers_message_is_cut(client, server, tmp_path):
    files = [tmp_path / f"cat{position}.png" for position in range(3)]
    found = [
        BadRequest.FieldViolation(field=f"support.inputs.images.files[{position}]", description="is damaged")
        for position in range(3)
    ]
    for file in files:
        file.write_bytes(b"content")
    cut = "support.inputs.images.files[0]: is damaged; support.inputs.im"
    details = (BadRequest(field_violations=found),)
    server.script("Adapt", Failure(Code.INVALID_ARGUMENT, cut, details))
    with pytest.raises(innerloop.InvalidArgumentError) as caught:
        await client.adapt("grey", files, ["a", "b", "c"])
    assert caught.value.message == "; ".join(f"{str(file)!r}: is damaged" for file in files)


async def test_a_refusal_makes_the_client_ask_again_what_the_model_takes(client, server):
    server.models["grey"].input_shape[:] = (1, 14, 14)
    await client.adapt("grey", np.zeros((2, 28, 28), np.uint8), ["a", "b"])
    server.script("Adapt", bad_request("support.inputs.tensor.shape", "is wrong"))
    with pytest.raises(innerloop.InvalidArgumentError):
        await client.adapt("grey", np.zeros((2, 28, 28), np.uint8), ["a", "b"])
    await client.adapt("grey", np.zeros((2, 28, 28), np.uint8), ["a", "b"])
    assert len(server.requests("GetModel")) == 2


async def test_details_of_other_systems_do_no_harm(client, server):
    foreign = AnyMessage(type_url="type.googleapis.com/somebody.Else", value=b"\xff")
    server.script("GetModel", Failure(Code.PERMISSION_DENIED, "no", (foreign,)))
    with pytest.raises(innerloop.PermissionDeniedError):
        await client.model("grey")


async def test_a_server_that_is_not_there_is_unavailable(make_client):
    with pytest.raises(innerloop.UnavailableError):
        await make_client(address="localhost:1", retries=0).models()


async def test_a_message_above_the_limit_is_refused_at_once(client, server):
    huge = np.zeros((1, 65 * 1024 * 1024), np.uint8)
    with pytest.raises(innerloop.ResourceExhaustedError) as caught:
        await client.adapt("vectors", huge, ["a"])
    assert type(caught.value) is innerloop.ResourceExhaustedError
    assert not server.received


async def test_an_answer_that_takes_too_long_exceeds_the_deadline(client, server):
    server.slow = 1.0
    with pytest.raises(innerloop.DeadlineExceededError) as caught:
        await client.adapt("grey", IMAGES, ["a", "b"], timeout=0.1)
    assert isinstance(caught.value, TimeoutError)
    assert len(server.requests("Adapt")) == 1

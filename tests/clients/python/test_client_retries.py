"""What is tried again, how often, and when."""

import itertools
import time

import grpc
import numpy as np
import pytest
from scripted_server import Failure, bad_request, overloaded, reason

import innerloop

IMAGES = np.zeros((2, 1, 28, 28), np.uint8)
LOADING = Failure(grpc.StatusCode.FAILED_PRECONDITION, "loading", (reason("MODEL_LOADING"),))
SHUTTING_DOWN = Failure(grpc.StatusCode.UNAVAILABLE, "bye", (reason("SHUTTING_DOWN"),))
UNREAD = Failure(grpc.StatusCode.CANCELLED)
"""How gRPC refuses a call at a server that has too many."""


def waits(server, method):
    """Seconds between the attempts of one call."""
    times = [received.at for received in server.received if received.method == method]
    return [after - before for before, after in itertools.pairwise(times)]


@pytest.mark.parametrize(
    "failure", [overloaded(0.01), LOADING, SHUTTING_DOWN, UNREAD], ids=lambda failure: failure.code.name
)
async def test_a_passing_failure_is_not_seen_by_the_caller(client, server, failure):
    server.script("Adapt", failure)
    server.script("Predict", failure)
    server.script("AdaptPredict", failure)
    adaptation = await client.adapt("grey", IMAGES, ["a", "b"])
    assert (await adaptation.predict(IMAGES)).labels == ["a", "b"]
    assert len(await client.adapt_predict("grey", IMAGES, ["a", "b"], query=IMAGES)) == 2


async def test_the_delay_that_the_server_asks_for_is_kept(client, server):
    server.script("Predict", overloaded(0.4), overloaded(0.2))
    adaptation = await client.adapt("grey", IMAGES, ["a", "b"])
    await adaptation.predict(IMAGES)
    first, second = waits(server, "Predict")
    assert 0.4 <= first < 1.5
    assert 0.2 <= second < 1.5


async def test_attempts_of_one_adapt_carry_one_id_so_that_the_server_adapts_once(client, server):
    server.script("Adapt", SHUTTING_DOWN, SHUTTING_DOWN)
    await client.adapt("grey", IMAGES, ["a", "b"])
    ids = [(received.request_id, received.request.request_id) for received in server.received]
    assert len(ids) == 3
    assert len(set(itertools.chain(*ids))) == 1


async def test_it_gives_up_after_the_retries_allowed(make_client, server):
    server.script("GetModel", *[overloaded(0.01)] * 5)
    with pytest.raises(innerloop.OverloadedError) as caught:
        await make_client(retries=2).model("grey")
    assert caught.value.retry_after == pytest.approx(0.01)
    assert len(server.requests("GetModel")) == 3


async def test_a_model_that_loads_for_longer_than_the_retries_is_waited_for(make_client, server):
    server.script("Adapt", *[LOADING] * 4)
    assert (await make_client(retries=1).adapt("grey", IMAGES, ["a", "b"])).classes
    server.script("Adapt", LOADING)
    with pytest.raises(innerloop.ModelLoadingError):
        await make_client(retries=0).adapt("grey", IMAGES, ["a", "b"])


async def test_retries_can_be_turned_off(make_client, server):
    server.script("GetModel", overloaded(0.01))
    with pytest.raises(innerloop.OverloadedError):
        await make_client(retries=0).model("grey")
    assert len(server.requests("GetModel")) == 1


async def test_a_wait_beyond_the_timeout_is_not_begun(client, server):
    server.script("GetModel", overloaded(30.0))
    start = time.monotonic()
    with pytest.raises(innerloop.OverloadedError):
        await client.model("grey", timeout=3.0)
    assert time.monotonic() - start < 1.5
    assert len(server.requests("GetModel")) == 1


async def test_attempts_share_the_timeout(client, server):
    server.slow = 2.0
    server.script("Adapt", overloaded(0.2))
    start = time.monotonic()
    with pytest.raises(innerloop.DeadlineExceededError):
        await client.adapt("grey", IMAGES, ["a", "b"], timeout=0.6)
    assert time.monotonic() - start < 1.8


@pytest.mark.parametrize(
    "failure",
    [
        bad_request("model", "what?"),
        Failure(grpc.StatusCode.INTERNAL),
        Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "too large"),
        Failure(grpc.StatusCode.PERMISSION_DENIED),
    ],
    ids=lambda failure: failure.code.name,
)
async def test_a_failure_that_would_come_again_is_not_tried_again(client, server, failure):
    server.script("GetModel", failure)
    with pytest.raises(innerloop.InnerloopError):
        await client.model("grey")
    assert len(server.requests("GetModel")) == 1


@pytest.mark.parametrize(("method", "call"), [("LoadModel", "load_model"), ("UnloadModel", "unload_model")])
async def test_loading_and_unloading_are_not_repeated(client, server, method, call):
    server.script(method, SHUTTING_DOWN)
    with pytest.raises(innerloop.UnavailableError):
        await getattr(client, call)("grey")
    assert len(server.requests(method)) == 1

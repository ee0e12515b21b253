"""A server that dropped an adaptation is a delay to callers, not an error."""

import asyncio

import grpc
import numpy as np
import pytest
from scripted_server import Failure, reason

from innerloop import (
    AdaptationEvictedError,
    AdaptationNotFoundError,
    AsyncClient,
    Client,
    DeadlineExceededError,
    PermissionDeniedError,
)

IMAGES = np.zeros((2, 1, 28, 28), np.uint8)
EVICTED = Failure(grpc.StatusCode.NOT_FOUND, "dropped", (reason("ADAPTATION_EVICTED"),))
REFUSED = Failure(grpc.StatusCode.PERMISSION_DENIED)


@pytest.mark.parametrize(
    ("code", "word"),
    [
        (grpc.StatusCode.NOT_FOUND, "ADAPTATION_DAMAGED"),
        (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_RETIRED"),
    ],
)
async def test_an_adaptation_that_the_server_can_not_use_any_more_is_made_again(client, server, code, word):
    adaptation = await client.adapt("grey", IMAGES, [1, 2])
    server.script("Predict", Failure(code, "no more", (reason(word),)))
    assert (await adaptation.predict(IMAGES)).labels == [1, 2]
    assert len(server.requests("AdaptPredict")) == 1


@pytest.mark.parametrize("loss", ["evict_all", "restart"])
async def test_an_adaptation_that_the_server_lost_is_made_again(client, server, loss):
    adaptation = await client.adapt("grey", IMAGES, [1, 2], steps=3, time_to_live=60)
    lost = adaptation.id
    getattr(server, loss)()
    assert (await adaptation.predict(IMAGES)).labels == [1, 2]
    (first,), (second,) = server.requests("Adapt"), server.requests("AdaptPredict")
    assert first.request_id != second.request_id
    assert (first.model, first.support, first.options) == (second.model, second.support, second.options)
    assert adaptation.id != lost
    assert (await adaptation.predict(IMAGES)).labels == [1, 2]
    assert [request.adaptation_id for request in server.requests("Predict")] == [lost, adaptation.id]


async def test_concurrent_questions_make_it_again_once(client, server):
    adaptation = await client.adapt("grey", IMAGES, [1, 2])
    server.evict_all()
    server.slow = 0.1
    answers = await asyncio.gather(*(adaptation.predict(IMAGES) for _ in range(8)))
    assert [answer.labels for answer in answers] == [[1, 2]] * 8
    assert len(server.requests("AdaptPredict")) == 1


async def test_a_question_that_waits_for_it_to_be_made_again_keeps_its_own_timeout(client, server):
    adaptation = await client.adapt("grey", IMAGES, [1, 2])
    server.evict_all()
    server.slow = 1.0
    patient = asyncio.ensure_future(adaptation.predict(IMAGES))
    while not server.requests("AdaptPredict"):
        await asyncio.sleep(0.01)
    with pytest.raises(DeadlineExceededError):
        await adaptation.predict(IMAGES, timeout=0.2)
    assert not patient.done()
    assert (await patient).labels == [1, 2]


async def test_a_server_so_short_of_memory_that_it_keeps_nothing_still_answers(client, server):
    adaptation = await client.adapt("grey", IMAGES, [1, 2])
    server.script("Predict", *[EVICTED] * 10)
    answers = await asyncio.gather(*(adaptation.predict(IMAGES, return_logits=True) for _ in range(4)))
    assert [answer.labels for answer in answers] == [[1, 2]] * 4
    assert all(answer.logits.shape == (2, 2) for answer in answers)
    assert 1 <= len(server.requests("AdaptPredict")) <= 4


async def test_making_it_again_can_be_turned_off(make_client, server):
    adaptation = await make_client(readapt=False).adapt("grey", IMAGES, [1, 2])
    assert (await adaptation.predict(IMAGES)).labels == [1, 2]
    server.evict_all()
    with pytest.raises(AdaptationEvictedError):
        await adaptation.predict(IMAGES)
    assert len(server.requests("Adapt")) == 1
    assert not server.requests("AdaptPredict")


async def test_an_adaptation_that_was_looked_up_is_not_made_again(client, server):
    made = await client.adapt("grey", IMAGES, [1, 2])
    found = await client.get_adaptation(made.id)
    server.evict_all()
    with pytest.raises(AdaptationEvictedError):
        await found.predict(IMAGES)


async def test_a_deleted_adaptation_stays_deleted(client, server):
    adaptation = await client.adapt("grey", IMAGES, [1, 2])
    await adaptation.delete()
    with pytest.raises(AdaptationNotFoundError):
        await adaptation.predict(IMAGES)
    assert not server.requests("AdaptPredict")


async def test_deleting_what_the_server_lost_already_is_fine(client, server):
    adaptation = await client.adapt("grey", IMAGES, [1, 2])
    server.evict_all()
    await adaptation.delete()


def test_an_error_inside_a_context_is_not_hidden_by_failing_to_forget(server):
    server.script("DeleteAdaptation", REFUSED)
    with Client(server.address) as client, pytest.raises(KeyError), client.adapt("grey", IMAGES, [1, 2]):
        raise KeyError


async def test_nor_in_an_asynchronous_context(server):
    server.script("DeleteAdaptation", REFUSED)
    async with AsyncClient(server.address) as client:
        with pytest.raises(KeyError):
            async with await client.adapt("grey", IMAGES, [1, 2]):
                raise KeyError


def test_failing_to_forget_is_told_when_nothing_else_went_wrong(server):
    server.script("DeleteAdaptation", REFUSED)
    with Client(server.address) as client, pytest.raises(PermissionDeniedError), client.adapt("grey", IMAGES, [1, 2]):
        pass

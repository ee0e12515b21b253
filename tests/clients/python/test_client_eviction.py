"""A server that dropped an adaptation is a delay to callers, not an error."""

import asyncio

import grpc
import numpy as np
import pytest
from scripted_server import Failure, reason

from innerloop import AdaptationEvictedError, AdaptationNotFoundError, DeadlineExceededError

IMAGES = np.zeros((2, 1, 28, 28), np.uint8)
EVICTED = Failure(grpc.StatusCode.NOT_FOUND, "dropped", (reason("ADAPTATION_EVICTED"),))


@pytest.mark.parametrize("loss", ["evict_all", "restart"])
async def test_an_adaptation_that_the_server_lost_is_made_again(client, server, loss):
    adaptation = await client.adapt("grey", IMAGES, [1, 2], steps=3, time_to_live=60)
    lost = adaptation.id
    getattr(server, loss)()
    assert (await adaptation.predict(IMAGES)).labels == [1, 2]
    first, second = server.requests("Adapt")
    assert first.request_id != second.request_id
    assert (first.model, first.support, first.options) == (second.model, second.support, second.options)
    assert adaptation.id != lost
    assert [request.adaptation_id for request in server.requests("Predict")] == [lost, adaptation.id]


async def test_concurrent_questions_make_it_again_once(client, server):
    adaptation = await client.adapt("grey", IMAGES, [1, 2])
    server.evict_all()
    server.slow = 0.1
    answers = await asyncio.gather(*(adaptation.predict(IMAGES) for _ in range(8)))
    assert [answer.labels for answer in answers] == [[1, 2]] * 8
    assert len(server.requests("Adapt")) == 2


async def test_a_question_that_waits_for_it_to_be_made_again_keeps_its_own_timeout(client, server):
    adaptation = await client.adapt("grey", IMAGES, [1, 2])
    server.evict_all()
    server.slow = 1.0
    patient = asyncio.ensure_future(adaptation.predict(IMAGES))
    while len(server.requests("Adapt")) < 2:
        await asyncio.sleep(0.01)
    with pytest.raises(DeadlineExceededError):
        await adaptation.predict(IMAGES, timeout=0.2)
    assert not patient.done()
    assert (await patient).labels == [1, 2]


async def test_it_is_made_again_once_per_question_only(client, server):
    adaptation = await client.adapt("grey", IMAGES, [1, 2])
    server.script("Predict", EVICTED, EVICTED)
    with pytest.raises(AdaptationEvictedError):
        await adaptation.predict(IMAGES)
    assert len(server.requests("Adapt")) == 2


async def test_making_it_again_can_be_turned_off(make_client, server):
    adaptation = await make_client(readapt=False).adapt("grey", IMAGES, [1, 2])
    assert (await adaptation.predict(IMAGES)).labels == [1, 2]
    server.evict_all()
    with pytest.raises(AdaptationEvictedError):
        await adaptation.predict(IMAGES)
    assert len(server.requests("Adapt")) == 1


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
    assert len(server.requests("Adapt")) == 1


async def test_deleting_what_the_server_lost_already_is_fine(client, server):
    adaptation = await client.adapt("grey", IMAGES, [1, 2])
    server.evict_all()
    await adaptation.delete()

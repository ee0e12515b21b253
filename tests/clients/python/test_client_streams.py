"""Many queries on one stream: the caller sees them answered in order, whatever happens on the way."""

import asyncio
import functools
import itertools
import time

import grpc
import numpy as np
import pytest
from scripted_server import Failure, bad_request, overloaded, reason
from twins import collect, first

from innerloop import (
    AdaptationEvictedError,
    AdaptationNotFoundError,
    DeadlineExceededError,
    InvalidArgumentError,
    OverloadedError,
    PermissionDeniedError,
    UnavailableError,
)
from innerloop.stream_core import LOOK_AHEAD

IMAGES = np.zeros((2, 1, 28, 28), np.uint8)
SHUTTING_DOWN = Failure(grpc.StatusCode.UNAVAILABLE, "stopping", (reason("SHUTTING_DOWN"),))


def queries(count):
    """Queries that can be told apart by how many inputs they have."""
    return [np.zeros((1 + index % 5, 1, 28, 28), np.uint8) for index in range(count)]


def sizes(answers):
    return [len(answer) for answer in answers]


@pytest.fixture
async def adaptation(client):
    return await client.adapt("grey", IMAGES, [1, 2])


@pytest.mark.parametrize("held_back", [0, 1, 7])
async def test_answers_come_in_the_order_of_the_queries(adaptation, server, held_back):
    server.held_back = held_back
    answers = await collect(adaptation.predict_stream(queries(100), return_logits=True))
    assert sizes(answers) == sizes(queries(100))
    assert all(answer.classes == (1, 2) for answer in answers)
    assert answers[4].labels == [1, 2, 1, 2, 1]
    assert answers[99].logits.shape == (5, 2)
    assert len(server.requests("StreamPredict")) == 1
    named = [request.adaptation_id for request in server.requests("query")]
    assert named == [adaptation.id, *[""] * 99]
    assert not server.requests("Predict")


@pytest.mark.parametrize("empty", [[], iter(())])
async def test_no_queries_are_no_answers(adaptation, empty):
    assert await collect(adaptation.predict_stream(empty)) == []


async def test_queries_are_read_only_so_far_ahead_and_no_further_than_somebody_listens(adaptation, server):
    read = itertools.count()
    endless = (IMAGES for _ in read)
    assert sizes(await first(3, adaptation.predict_stream(endless))) == [2, 2, 2]
    await asyncio.sleep(0.1)
    assert next(read) <= 3 + LOOK_AHEAD + 1
    assert len(server.requests("query")) <= 3 + LOOK_AHEAD


async def test_an_answer_does_not_wait_for_the_next_query(adaptation):
    asked = asyncio.Queue()

    async def live():
        while (query := await asked.get()) is not None:
            yield query

    loop = asyncio.get_running_loop()
    stream = adaptation.predict_stream(live())
    if hasattr(stream, "__aiter__"):
        following = stream.__anext__
    else:
        stream.close()
        stream = await adaptation.predict_stream(in_thread(loop, live()))
        following = functools.partial(asyncio.to_thread, next, stream)
    for query in queries(10):
        asked.put_nowait(query)
        assert len(await following()) == len(query)
    await stream.aclose() if hasattr(stream, "aclose") else stream.close()


def in_thread(loop, source):
    """What an asynchronous source gives, for a synchronous reader in another thread."""
    while True:
        yield asyncio.run_coroutine_threadsafe(anext(source), loop).result(10)


async def test_queries_may_come_asynchronously(adaptation):
    async def source():
        for query in queries(10):
            await asyncio.sleep(0.001)
            yield query

    stream = adaptation.predict_stream(source())
    if hasattr(stream, "__aiter__"):
        assert sizes([answer async for answer in stream]) == sizes(queries(10))
    else:
        with pytest.raises(InvalidArgumentError, match="async_generator"):
            await stream


async def test_what_the_source_of_queries_raises_comes_after_the_answers_so_far(adaptation):
    def source():
        yield from queries(3)
        raise KeyError("source")

    answers = []
    with pytest.raises(KeyError, match="source"):
        await gather(answers, adaptation.predict_stream(source()))
    assert sizes(answers) == [1, 2, 3]


async def test_a_query_that_can_not_be_sent_is_an_error_in_its_place(adaptation):
    answers = []
    with pytest.raises(InvalidArgumentError, match="can't read"):
        await gather(answers, adaptation.predict_stream([IMAGES, ["no such file"], IMAGES]))
    assert sizes(answers) == [2]


async def gather(answers, stream):
    """Collect into `answers` what comes before an error."""
    if hasattr(stream, "__aiter__"):
        async for answer in stream:
            answers.append(answer)
    else:
        items = await stream
        await asyncio.to_thread(lambda: [answers.append(answer) for answer in items])


@pytest.mark.parametrize("loss", ["evict_all", "restart"])
@pytest.mark.parametrize("held_back", [0, 3])
async def test_an_adaptation_that_is_lost_in_mid_stream_is_made_again(adaptation, server, loss, held_back):
    server.held_back = held_back
    lost = adaptation.id

    def source():
        yield from queries(50)
        getattr(server, loss)()
        yield from queries(50)

    answers = await collect(adaptation.predict_stream(source()))
    assert sizes(answers) == sizes(queries(50)) * 2
    assert all(answer.classes == (1, 2) for answer in answers)
    assert len(server.requests("AdaptPredict")) == 1
    assert adaptation.id != lost
    named = [request.adaptation_id for request in server.requests("query")]
    assert [name for name in named if name] == [lost, adaptation.id]
    assert len(server.requests("Predict")) <= LOOK_AHEAD, "only what was under way is asked again"


async def test_an_adaptation_that_can_not_be_made_again_is_an_error(make_client, server):
    client = make_client(readapt=False)
    adaptation = await client.adapt("grey", IMAGES, [1, 2])
    server.evict_all()
    with pytest.raises(AdaptationEvictedError):
        await collect(adaptation.predict_stream(queries(5)))
    server.restart()
    with pytest.raises(AdaptationNotFoundError):
        await collect(adaptation.predict_stream(queries(5)))


async def test_a_query_that_is_refused_raises_what_predict_raises(adaptation, server):
    server.script("answer", bad_request("query.tensor.shape", "is wrong"))
    with pytest.raises(InvalidArgumentError, match="is wrong") as refused:
        await collect(adaptation.predict_stream(queries(5)))
    (violation,) = refused.value.violations
    assert violation.field == "query.tensor.shape"
    (stream,) = [received for received in server.received if received.method == "StreamPredict"]
    assert refused.value.request_id == stream.request_id
    assert not server.requests("Predict"), "asking again makes no sense"


async def test_a_query_that_found_the_server_busy_is_asked_again(adaptation, server):
    server.script("answer", overloaded(0.01))
    assert sizes(await collect(adaptation.predict_stream(queries(50)))) == sizes(queries(50))
    assert len(server.requests("Predict")) == 1


async def test_without_retries_it_is_an_error(make_client, server):
    adaptation = await make_client(retries=0).adapt("grey", IMAGES, [1, 2])
    server.script("query", SHUTTING_DOWN)
    with pytest.raises(UnavailableError):
        await collect(adaptation.predict_stream(queries(5)))
    server.script("answer", overloaded(0.01))
    with pytest.raises(OverloadedError):
        await collect(adaptation.predict_stream(queries(5)))


@pytest.mark.parametrize("held_back", [0, 3])
async def test_a_stream_that_breaks_is_followed_by_another(adaptation, server, held_back):
    server.held_back = held_back

    def source():
        for index, query in enumerate(queries(100)):
            if index in (20, 60):
                server.script("query", SHUTTING_DOWN)
            yield query

    answers = await collect(adaptation.predict_stream(source()))
    assert sizes(answers) == sizes(queries(100))
    assert all(answer.classes == (1, 2) for answer in answers)
    assert len(server.requests("StreamPredict")) == 3
    assert len(server.requests("Predict")) == 2


async def test_a_stream_that_is_refused_before_anything_was_asked(adaptation, server):
    server.script("StreamPredict", SHUTTING_DOWN)
    assert sizes(await collect(adaptation.predict_stream(queries(5)))) == sizes(queries(5))
    server.script("StreamPredict", SHUTTING_DOWN)
    assert await collect(adaptation.predict_stream([])) == []
    for method in ("StreamPredict", "Predict"):
        server.script(method, Failure(grpc.StatusCode.PERMISSION_DENIED))
    with pytest.raises(PermissionDeniedError):
        await collect(adaptation.predict_stream(queries(5)))


async def test_an_answer_that_does_not_come_is_given_up(adaptation, server):
    server.silent = True
    started = time.monotonic()
    with pytest.raises(DeadlineExceededError):
        await collect(adaptation.predict_stream(queries(5), timeout=0.2))
    assert 0.1 < time.monotonic() - started < 2


async def test_neither_slow_callers_nor_slow_queries_count_as_late_answers(adaptation):
    stream = adaptation.predict_stream(queries(3), timeout=0.2)
    if hasattr(stream, "__aiter__"):

        async def source():
            for query in queries(3):
                await asyncio.sleep(0.3)
                yield query

        async for _ in stream:
            await asyncio.sleep(0.3)
    else:

        def source():
            for query in queries(3):
                time.sleep(0.3)
                yield query

        for _ in await stream:
            await asyncio.sleep(0.3)
    assert sizes(await collect(adaptation.predict_stream(source(), timeout=0.2))) == [1, 2, 3]


@pytest.mark.parametrize("seconds", [float("inf"), 1e10])
async def test_a_timeout_may_be_as_long_as_one_likes(adaptation, seconds):
    assert sizes(await collect(adaptation.predict_stream(queries(3), timeout=seconds))) == [1, 2, 3]

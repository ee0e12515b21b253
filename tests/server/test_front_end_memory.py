"""Requests through shared memory: a front end's side and the engine process's side, joined by real sockets."""

import asyncio
import gc
import os
import socket
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from fakes import describe

from innerloop_server.domain.answers import Answers
from innerloop_server.domain.callers import Caller, Priority
from innerloop_server.domain.deadline import Deadline
from innerloop_server.domain.errors import InvalidRequestError, ModelLoadingError, OverloadedError
from innerloop_server.domain.model_versions import ModelVersions
from innerloop_server.domain.models import ModelEntry, ModelState, ServedModel
from innerloop_server.domain.results import AdaptPredictResult
from innerloop_server.domain.tasks import AdaptTask, SupportSet
from innerloop_server.domain.timings import Timings
from innerloop_server.frontend import messages
from innerloop_server.frontend.engine_client import EngineClient
from innerloop_server.frontend.failures import EngineProcessError
from innerloop_server.frontend.known_adaptations import Known, KnownAdaptations
from innerloop_server.frontend.remote_serving import RemoteServing
from innerloop_server.frontend.request_handler import RequestHandler
from innerloop_server.ipc.allocator import Block
from innerloop_server.ipc.link import Link
from innerloop_server.ipc.segment import Segment

SIZE = 1 << 20
MODEL = ServedModel("model", describe(digest="0123456789ab"))


@dataclass
class Echo:
    """A serving that answers with the query, once it may; keeps what it was given while it `holds`."""

    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    holds: list[Any] = field(default_factory=list)
    seen: list[Any] = field(default_factory=list)
    error: Exception | None = None

    async def versions(self, name):
        return ModelVersions(name, (ModelEntry(name, ModelState.READY, MODEL.description),))

    async def adapt_predict(self, caller, task, query, keep, deadline):
        del keep
        self.seen.append((task.support.y.tolist(), query.dtype, query.shape, deadline.at, caller.priority))
        self.holds.append((task, query))
        await self.may_answer.wait()
        if self.error is not None:
            try:
                raise OSError
            except OSError as cause:
                raise self.error from cause
        self.holds.clear()
        return AdaptPredictResult(Answers(values=query.copy()), None, Timings(1, 2, 3))


@pytest.fixture
async def echo():
    return Echo()


@dataclass
class Pair:
    """Both ends of a link, and the front end's view of its memory."""

    remote: RemoteServing
    client: EngineClient
    session: RequestHandler
    link: Link

    @property
    def free_bytes(self):
        return self.client._allocator.free_bytes

    async def until_free(self):
        for _ in range(200):
            if self.free_bytes == SIZE:
                return
            await asyncio.sleep(0.005)
        pytest.fail(f"{SIZE - self.free_bytes} bytes are still in use")


@pytest.fixture
async def pair(echo):
    segment = Segment.create(SIZE)
    left, right = socket.socketpair()
    front = Link(messages.ToFrontEnd, lambda message: client.receive(message), lambda: None)
    back = Link(messages.FromFrontEnd, lambda message: session.receive(message), lambda: None)
    client = EngineClient(front, Segment(segment.descriptor))
    session = RequestHandler(echo, back, segment)
    await front.open(left)
    await back.open(right)
    yield Pair(RemoteServing(client), client, session, front)
    front.close()
    await session.close()


def ask(pair, query, deadline=None, model=MODEL):
    support = SupportSet(np.zeros((2, 1, 8, 8), np.uint8), np.arange(2), 2)
    task = AdaptTask(model, support, ("a", "b"), 1)
    caller = Caller("me", priority=Priority.INTERACTIVE)
    return asyncio.create_task(pair.remote.adapt_predict(caller, task, query, None, deadline or Deadline()))


def query_of(count):
    return np.random.default_rng(0).random((count, 1), np.float32)


@pytest.mark.parametrize("count", [1, 1000, 60_000])
async def test_arrays_cross_unchanged_and_their_memory_comes_back(pair, echo, count):
    echo.may_answer.set()
    query = query_of(count)
    query.flags.writeable = False
    result = await ask(pair, query, deadline := Deadline(100))
    np.testing.assert_array_equal(result.answers.values, query)
    assert echo.seen == [([0, 1], np.float32, (count, 1), deadline.at, Priority.INTERACTIVE)]
    assert result.timings == Timings(1, 2, 3)
    await pair.until_free()


async def test_the_engine_process_reads_the_segment_itself_and_can_not_write_to_a_request(pair, echo):
    asked = ask(pair, query_of(10))
    while not echo.holds:
        await asyncio.sleep(0)
    ((task, query),) = echo.holds
    for array in (task.support.x, task.support.y, query):
        assert not array.flags.owndata
        assert not array.flags.writeable
    pair.client._segment.block(Block(0, SIZE))[:] = 0  # what the front end writes is seen at once
    assert query.max() == 0
    del task, query, array
    echo.may_answer.set()
    await asked
    await pair.until_free()


async def test_memory_of_a_cancelled_request_is_not_used_again_while_it_is_being_read(pair, echo):
    first = ask(pair, np.full((1000, 1), 7, np.float32))
    while not echo.holds:
        await asyncio.sleep(0)
    ((task, query),) = echo.holds
    echo.holds.clear()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await asyncio.sleep(0.05)
    assert pair.free_bytes < SIZE
    echo.may_answer.set()
    await ask(pair, np.full((1000, 1), 9, np.float32))
    assert set(query.flat) == {7}
    del task, query
    await pair.until_free()


async def test_a_request_that_is_cancelled_before_it_was_begun_gives_its_memory_back(pair, echo):
    asked = ask(pair, query_of(10))
    await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await asyncio.sleep(0.05)
    echo.holds.clear()
    await pair.until_free()


async def test_a_request_that_is_cancelled_while_it_is_copied_gives_its_memory_back(pair, monkeypatch):
    monkeypatch.setattr("innerloop_server.frontend.engine_client.LARGE", 1)
    asked = ask(pair, query_of(1000))
    await asyncio.sleep(0)
    assert pair.free_bytes < SIZE
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await pair.until_free()


async def test_when_the_segment_is_full_requests_are_refused_until_there_is_room(pair, echo):
    first = ask(pair, query_of(150_000))
    while not echo.holds:
        await asyncio.sleep(0)
    with pytest.raises(OverloadedError) as refused:
        await ask(pair, query_of(150_000))
    assert refused.value.retry_after > 0
    echo.may_answer.set()
    assert len((await first).answers.values) == 150_000
    await pair.until_free()
    await ask(pair, query_of(150_000))


async def test_a_caller_who_has_been_answered_finds_the_room_that_is_about_to_be_free_again(pair, echo):
    first = ask(pair, query_of(150_000))
    while not echo.holds:
        await asyncio.sleep(0)
    being_let_go_of = echo.holds.copy()
    echo.may_answer.set()
    await first
    second = ask(pair, query_of(150_000))
    await asyncio.sleep(0.01)
    being_let_go_of.clear()
    assert len((await second).answers.values) == 150_000
    await pair.until_free()


async def test_room_that_is_not_free_again_in_time_is_not_waited_for_any_longer(pair, echo):
    first = ask(pair, query_of(150_000))
    while not echo.holds:
        await asyncio.sleep(0)
    held = echo.holds.copy()
    echo.may_answer.set()
    await first
    with pytest.raises(OverloadedError):
        await asyncio.wait_for(ask(pair, query_of(150_000)), 2)
    held.clear()
    await pair.until_free()


async def test_a_request_larger_than_the_segment_is_refused_for_good(pair):
    with pytest.raises(InvalidRequestError) as refused:
        await ask(pair, query_of(300_000))
    (violation,) = refused.value.violations
    assert violation.field == "query"
    assert "1200000 bytes" in violation.description


@pytest.mark.parametrize("error", [OverloadedError(1.0), RuntimeError("poison")])
async def test_a_request_that_fails_gives_its_memory_back_at_once(pair, echo, error):
    echo.error = error
    echo.may_answer.set()
    gc.disable()
    try:
        with pytest.raises(OverloadedError if isinstance(error, OverloadedError) else EngineProcessError):
            await ask(pair, query_of(10))
        echo.holds.clear()
        await pair.until_free()
    finally:
        gc.enable()


async def test_a_request_that_was_decoded_for_another_bundle_than_the_model_has_now_is_to_be_tried_again(pair):
    with pytest.raises(ModelLoadingError) as refused:
        await ask(pair, query_of(10), model=ServedModel("model", describe(digest="old")))
    assert refused.value.retry_after
    await pair.until_free()


async def test_arrays_outlive_the_front_end_that_sent_them(pair, echo):
    asked = ask(pair, np.full((1000, 1), 7, np.float32))
    while not echo.holds:
        await asyncio.sleep(0)
    ((_, query),) = echo.holds
    pair.link.close()
    await pair.session.close()
    echo.holds.clear()
    del pair.client._segment, pair.session._segment
    gc.collect()
    assert set(query.flat) == {7}
    asked.cancel()


async def test_a_descriptor_can_not_be_shrunk_under_the_engine_process():
    segment = Segment.create(SIZE)
    with pytest.raises(PermissionError):
        os.ftruncate(segment.descriptor, 0)
    segment.close()


def test_the_adaptations_used_least_recently_are_forgotten():
    known = KnownAdaptations(most=2)
    for name in ("a", "b"):
        known.remember("me", name, Known(MODEL, 2))
    assert known.get("me", "a") == Known(MODEL, 2)
    known.remember("me", "c", Known(MODEL, 3))
    assert known.get("me", "b") is None
    assert known.get("me", "a")
    assert known.get("you", "a") is None
    known.forget("me", "a")
    assert known.get("me", "a") is None

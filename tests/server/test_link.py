"""Messages between the server's processes."""

import asyncio
import math
import socket

import msgspec
import pytest
from fakes import describe
from hypothesis import given
from hypothesis import strategies as st

from innerloop_server.domain import errors
from innerloop_server.domain.adaptations import Adaptation, KeepOptions
from innerloop_server.domain.callers import Caller
from innerloop_server.domain.model_versions import Alias, ModelVersions, WantedAlias
from innerloop_server.domain.models import ModelEntry, ModelState
from innerloop_server.domain.results import AdaptResult
from innerloop_server.domain.timings import Timings
from innerloop_server.frontend import messages
from innerloop_server.frontend.failures import KINDS, EngineProcessError, error_of, failed
from innerloop_server.ipc.allocator import Block
from innerloop_server.ipc.link import LENGTH_BYTES, Link

AT = messages.ArrayAt(64, "<f4", (2, 3))
TASK = messages.SentTask("model", "digest", AT, messages.ArrayAt(0, "<i8", (2,)), 2, ("a", "ß"), 3, True)
ME = Caller("owner")
KEEP = KeepOptions(1.5, "request", b"\x00\xff")
MODEL = ModelVersions(
    "model",
    (
        ModelEntry("model", ModelState.READY, describe(), folder="1"),
        ModelEntry("model", ModelState.FAILED, error="why"),
    ),
    (Alias("canary", "1", "2", 12.5),),
)
FROM_FRONT_END = [
    messages.Request(1, messages.Adapt(ME, TASK, KEEP, True), math.inf, Block(128, 256)),
    messages.Request(2, messages.AdaptPredict(ME, TASK, AT, None, messages.Room(0, 1)), 1.25, Block(0, 64)),
    messages.Request(3, messages.Predict(ME, "digest", "id", AT, None), 1.25, Block(0, 64)),
    messages.Request(4, messages.ListAdaptations(ME, "", None, 10), math.inf, None),
    messages.Request(5, messages.ListModels(), math.inf, None),
    messages.Request(7, messages.SetAlias("model", "canary", WantedAlias("2", 5.0)), math.inf, None),
    messages.Cancel(6),
    messages.Listening(),
    messages.Refused("port: is taken"),
]
TO_FRONT_END = [
    messages.Start("{}", 3, "/tmp", (MODEL,), True, False),
    messages.Failed(1, "OverloadedError", "wait", 0.5, (errors.FieldViolation("a", "b"),)),
    messages.Released(2),
    messages.ModelChanged(MODEL),
    messages.ModelRemoved("model"),
    messages.ModelsLoaded(),
    messages.StoreChanged(False),
    messages.Stop(),
]


@pytest.mark.parametrize(
    ("kind", "message"),
    [(messages.FromFrontEnd, message) for message in FROM_FRONT_END]
    + [(messages.ToFrontEnd, message) for message in TO_FRONT_END],
)
def test_messages_arrive_as_they_were_sent(kind, message):
    content = msgspec.msgpack.encode(message)
    assert msgspec.msgpack.decode(content, type=kind) == message


def test_domain_objects_in_answers_arrive_as_they_were_sent():
    description = Adaptation("id", "model", "1", ("a", "b"), 2, 1, (0.5,), 100, 2**62, 2**62 + 1)
    result = AdaptResult(description, Timings(0.1, 0.2, 0.3))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(result), type=AdaptResult) == result


def test_only_element_types_that_requests_have_are_accepted():
    content = msgspec.msgpack.encode(messages.ArrayAt(0, "|O8", (1,)))
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(content, type=messages.ArrayAt)


ERRORS = [
    errors.InvalidRequestError([errors.FieldViolation("query", "is empty"), errors.FieldViolation("a", "b")]),
    errors.ModelNotFoundError("x"),
    errors.ModelLoadingError("x", 2.5),
    errors.ModelFailedError("x", "broken"),
    errors.ModelRetiredError("x"),
    errors.AdminDisabledError(),
    errors.NotAdminError(),
    errors.UnauthenticatedError(),
    errors.ScopeMissingError("adapt"),
    errors.AdaptationNotFoundError(),
    errors.AdaptationEvictedError(),
    errors.AdaptationDamagedError(),
    errors.AdaptationTooLargeError(10, 5),
    errors.TooManyAdaptationsError(5),
    errors.DivergedError(),
    errors.OverloadedError(1.5),
    errors.DeadlinePassedError(),
    errors.ShuttingDownError(),
    errors.StoreUnavailableError(),
    errors.RevisionChangedError(1, 2),
    errors.ExamplesNotKeptError(),
    errors.ClassesChangedError(),
    errors.DownloadsDisabledError(),
    errors.NotPortableError("why"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_are_the_same_on_the_other_side(error):
    content = msgspec.msgpack.encode(failed(7, error))
    again = error_of(msgspec.msgpack.decode(content, type=messages.ToFrontEnd))
    assert type(again) is type(error)
    assert (str(again), again.retry_after, again.facts) == (str(error), error.retry_after, error.facts)
    assert getattr(again, "violations", None) == getattr(error, "violations", None)


def test_every_kind_of_error_crosses():
    assert {type(error).__name__ for error in ERRORS} == set(KINDS)


def test_a_fault_of_the_engine_process_comes_with_its_trace():
    try:
        raise RuntimeError("secret cause")
    except RuntimeError as error:
        again = error_of(failed(7, error))
    assert isinstance(again, EngineProcessError)
    assert "secret cause" in str(again)
    assert __file__ in str(again)


@given(
    sizes=st.lists(st.integers(0, 300), min_size=1, max_size=20),
    cuts=st.lists(st.integers(1, 50), min_size=1, max_size=20),
)
def test_messages_are_found_however_the_stream_is_cut(sizes, cuts):
    sent = [messages.Refused("x" * size) for size in sizes]
    contents = [msgspec.msgpack.encode(message) for message in sent]
    stream = b"".join(len(content).to_bytes(LENGTH_BYTES) + content for content in contents)

    async def receive():
        received = []
        link = Link(messages.FromFrontEnd, received.append, lambda: None)
        position = 0
        while position < len(stream):
            cut = cuts[position % len(cuts)]
            link.data_received(stream[position : position + cut])
            position += cut
        return received

    assert asyncio.run(receive()) == sent


async def test_messages_arrive_in_order_over_sockets_and_the_end_is_noticed():
    received, lost = [], asyncio.Event()
    left, right = socket.socketpair()
    sender = Link(messages.ToFrontEnd, print, lambda: None)
    receiver = Link(messages.FromFrontEnd, received.append, lost.set)
    await sender.open(left)
    await receiver.open(right)
    sent = [messages.Refused(str(number) * 1000) for number in range(2000)]
    for message in sent:
        sender.send(message)
    async with asyncio.timeout(30):
        while len(received) < len(sent):
            await asyncio.sleep(0.01)
        assert received == sent
        sender.close()
        await lost.wait()
    receiver.send(messages.Listening())  # nobody hears it, which is no error

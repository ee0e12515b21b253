"""Requests whose tensors are detached say the same as those that protobuf parses alone."""

import time
import tracemalloc

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from wire import images, texts, waveforms

from innerloop.v1 import adaptation_pb2 as pb
from innerloop.v1 import tensor_pb2
from innerloop_server.domain.errors import InvalidRequestError
from innerloop_server.transport.codec import detached as wire
from innerloop_server.transport.codec.detached import MOST_FIELDS, THRESHOLD
from innerloop_server.transport.codec.requests import READERS, RequestLimits, limited_readers

KINDS = {
    "Adapt": pb.AdaptRequest,
    "Predict": pb.PredictRequest,
    "StreamPredict": pb.StreamPredictRequest,
    "AdaptPredict": pb.AdaptPredictRequest,
}
LARGE = bytes(range(256)) * (THRESHOLD // 256)


@pytest.fixture
def low_threshold(monkeypatch):
    """Even small data are detached."""
    monkeypatch.setattr(wire, "THRESHOLD", 4)


def tensor_of(message, path):
    """The tensor at a path, where there is one."""
    for name in path.split("."):
        if not message.HasField(name):
            return None
        message = getattr(message, name)
    return message


def put_together(received):
    """The message with all its data."""
    whole = type(received.message)()
    whole.CopyFrom(received.message)
    for path, data in received.detached.items():
        tensor = tensor_of(whole, path)
        if tensor is not None:  # otherwise something else came later in its oneof
            assert not tensor.data
            tensor.data = bytes(data)
    return whole


def parse(read, content):
    """What is read, or what is said instead."""
    try:
        return read(content), None
    except DecodeError as error:
        return None, str(error)


def check(name, content):
    """The same message or the same error as protobuf's own parse, and nothing else."""
    expected, refusal = parse(KINDS[name].FromString, content)
    received, error = parse(READERS[name], content)
    assert error == refusal
    if received is None:
        return None
    assert put_together(received).SerializeToString(deterministic=True) == expected.SerializeToString(
        deterministic=True
    )
    return received


def tensor(data=LARGE, **fields):
    return tensor_pb2.Tensor(data_type=tensor_pb2.DATA_TYPE_UINT8, shape=[len(data)], data=data, **fields)


def inputs(data=LARGE):
    return tensor_pb2.Inputs(tensor=tensor(data))


LABELS = pb.Labels(values=["a", "b"])
REQUESTS = {
    "Adapt": pb.AdaptRequest(
        model="m",
        support=pb.Support(inputs=inputs(), labels=LABELS),
        options=pb.AdaptOptions(steps=3),
        request_id="again",
    ),
    "Predict": pb.PredictRequest(adaptation_id="i", query=inputs(), return_logits=True),
    "StreamPredict": pb.StreamPredictRequest(sequence=2**64 - 1, adaptation_id="i", query=inputs()),
    "AdaptPredict": pb.AdaptPredictRequest(
        model="m", support=pb.Support(inputs=inputs(), labels=LABELS), query=inputs(LARGE[1:] * 3), keep=True
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_large_data_are_views_into_the_bytes_that_arrived(name):
    content = REQUESTS[name].SerializeToString()
    received = check(name, content)
    assert set(received.detached) == ({"query.tensor"} if "Predict" in name else set()) | (
        {"support.inputs.tensor"} if "Adapt" in name else set()
    )
    arrived = np.frombuffer(content, np.uint8)
    assert all(np.shares_memory(arrived, np.frombuffer(data, np.uint8)) for data in received.detached.values())


def test_small_data_stay_where_they_are():
    request = pb.PredictRequest(query=inputs(LARGE[1:]))
    received = check("Predict", request.SerializeToString())
    assert received.message == request
    assert received.detached == {}


@pytest.mark.parametrize("name", REQUESTS)
def test_data_that_are_sent_twice_are_merged_as_protobuf_merges_them(name):
    content = REQUESTS[name].SerializeToString()
    assert check(name, content + content).detached == {}
    other = KINDS[name].FromString(content)
    getattr(other, "query" if "Predict" in name else "support").Clear()
    check(name, content + other.SerializeToString())
    check(name, other.SerializeToString() + content)


def field(number, content):
    """A field of length-delimited content."""
    return wire._varint(number << 3 | wire.LENGTH) + wire._varint(len(content)) + content


def in_query(*pieces):
    """A Predict request whose query consists of these fields."""
    return field(2, b"".join(pieces))


def written_long(number):
    """A number with a byte more than it takes."""
    *most, last = wire._varint(number)
    return bytes([*most, last | 0x80, 0])


TENSOR = field(1, field(3, LARGE))
PECULIAR = {
    "data twice in a tensor": in_query(field(1, field(3, LARGE) + field(3, LARGE[::-1]))),
    "tensor twice": in_query(TENSOR, TENSOR),
    "images after the tensor": in_query(TENSOR, field(2, field(1, b"png"))),
    "images before the tensor": in_query(field(2, field(1, b"png")), TENSOR),
    "an empty tensor after the tensor": in_query(TENSOR, field(1, b"")),
    "an unpacked shape": in_query(field(1, b"\x10\x05\x10\x07" + field(3, LARGE))),
    "a shape after the data": in_query(field(1, field(3, LARGE) + field(2, b"\x05"))),
    "too many fields": in_query(field(1, b"\x10\x05" * MOST_FIELDS + field(3, LARGE))),
    "unknown fields": in_query(b"\xa0\x06\x01", field(100, b"unknown"), b"\xa5\x06abcd\xa1\x06abcdefgh", TENSOR),
    "a group": in_query(b"\xa3\x06\xa4\x06", TENSOR),
    "a group that does not end": in_query(b"\xa3\x06", TENSOR),
    "data as a number": in_query(field(1, field(3, LARGE) + b"\x18\x01")),
    "a query as a number": b"\x10\x01" + in_query(TENSOR),
    "a field number of zero": in_query(b"\x02\x00", TENSOR),
    "a length written long": b"\x12" + written_long(len(TENSOR)) + TENSOR,
    "a tag written long": b"\x92\x00" + wire._varint(len(TENSOR)) + TENSOR,
    "a tag of more than 32 bits": in_query(TENSOR, b"\x8a\x80\x80\x80\x10" + wire._varint(3) + b"abc"),
    "a number that never ends": in_query(TENSOR, b"\xa0\x06" + b"\xff" * 12),
    "an id that is not UTF-8": field(1, b"\xff\xfe") + in_query(TENSOR),
    "longer than it says": in_query(TENSOR) + b"\x12\xff\xff\xff\x7f",
    "bytes after the end": in_query(TENSOR) + b"\x00",
}


@pytest.mark.parametrize("content", PECULIAR.values(), ids=PECULIAR.keys())
def test_whatever_is_peculiar_means_what_protobuf_says(content):
    check("Predict", content)


data = st.binary(max_size=40)
shapes = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4)
tensors = st.builds(tensor_pb2.Tensor, data_type=st.sampled_from([0, 1, 4]), shape=shapes, data=data)
all_inputs = st.one_of(
    st.builds(tensor_pb2.Inputs, tensor=tensors),
    st.builds(tensor_pb2.Inputs, images=st.builds(tensor_pb2.EncodedImages, files=st.lists(data, max_size=2))),
    st.builds(tensor_pb2.Inputs),
)
supports = st.one_of(
    st.builds(pb.Support, inputs=all_inputs, labels=st.builds(pb.Labels, values=st.lists(st.text(max_size=3)))),
    st.builds(pb.Support, inputs=all_inputs, targets=tensors),
)
requests = st.one_of(
    st.tuples(st.just("Adapt"), st.builds(pb.AdaptRequest, model=st.text(), support=supports)),
    st.tuples(st.just("Predict"), st.builds(pb.PredictRequest, adaptation_id=st.text(), query=all_inputs)),
    st.tuples(
        st.just("StreamPredict"),
        st.builds(pb.StreamPredictRequest, sequence=st.integers(0, 2**64 - 1), query=all_inputs),
    ),
    st.tuples(
        st.just("AdaptPredict"),
        st.builds(pb.AdaptPredictRequest, support=supports, query=all_inputs, keep=st.booleans()),
    ),
)


@pytest.mark.usefixtures("low_threshold")
def test_any_request_says_the_same():
    @settings(max_examples=300, deadline=None)
    @given(requests)
    def same(request):
        name, message = request
        received = check(name, message.SerializeToString())
        for path in ("query.tensor", "support.inputs.tensor"):
            if path.partition(".")[0] in message.DESCRIPTOR.fields_by_name:
                found = tensor_of(message, path)
                assert (path in received.detached) == (found is not None and len(found.data) >= 4)

    same()


@pytest.mark.usefixtures("low_threshold")
def test_any_damage_is_what_protobuf_says_it_is():
    @settings(max_examples=1000, deadline=None)
    @given(requests, st.data())
    def same(request, draw):
        name, message = request
        content = bytearray(message.SerializeToString())
        for _ in range(draw.draw(st.integers(1, 3))):
            kind = draw.draw(st.sampled_from(["cut", "change", "insert", "repeat"]))
            begin = draw.draw(st.integers(0, len(content)))
            end = draw.draw(st.integers(begin, len(content)))
            if kind == "cut":
                del content[begin:end]
            elif kind == "insert":
                content[begin:begin] = draw.draw(st.binary(max_size=6))
            elif kind == "repeat":
                content[begin:begin] = content[begin:end]
            elif begin < len(content):
                content[begin] = draw.draw(st.integers(0, 255))
        check(name, bytes(content))

    same()


LIMITS = RequestLimits(support=100, query=200, time_to_live=60.0, max_time_to_live=600.0, message_bytes=2**26)
EMPTY = {
    "labels": lambda n: pb.AdaptRequest(support=pb.Support(labels=pb.Labels(values=[""] * n))),
    "images": lambda n: pb.AdaptRequest(support=pb.Support(inputs=images(*[b""] * n))),
    "texts": lambda n: pb.AdaptRequest(support=pb.Support(inputs=texts(*[""] * n))),
    "waveforms": lambda n: pb.AdaptRequest(support=pb.Support(inputs=waveforms(*[(np.zeros(0), 0)] * n))),
    "targets": lambda n: pb.AdaptRequest(support=pb.Support(targets=tensor_pb2.Tensor(shape=[1] * n))),
    "supports": lambda n: b"\x12\x00" * n,
    "unknown": lambda n: b"\x7a\x00" * n,
    "numbers": lambda n: b"\x78\x01" * n,
}


@pytest.mark.parametrize("kind", EMPTY)
def test_many_small_fields_are_refused_before_memory_is_taken_for_them(kind, request):
    made = EMPTY[kind](300_000)
    content = made if isinstance(made, bytes) else made.SerializeToString()
    read = limited_readers(LIMITS)["Adapt"]
    tracemalloc.start()
    request.addfinalizer(tracemalloc.stop)
    started = time.perf_counter()
    with pytest.raises(InvalidRequestError, match="message: holds more than 1,400 fields"):
        read(content)
    assert time.perf_counter() - started < 1
    assert tracemalloc.get_traced_memory()[1] < 2**20


def test_what_the_limits_allow_is_read():
    recordings = [(np.zeros(1000), 16_000)] * LIMITS.support
    request = pb.AdaptRequest(support=pb.Support(inputs=waveforms(*recordings), labels=pb.Labels(values=["a"] * 100)))
    assert limited_readers(LIMITS)["Adapt"](request.SerializeToString()).message == request


@pytest.mark.parametrize("damage", [b"\x0a\xff\xff\xff\xff\x0f", b"\x0b", b"\xff" * 11, b"\x0a"])
def test_a_large_request_that_is_damaged_is_refused(damage):
    content = REQUESTS["Adapt"].SerializeToString() + damage
    with pytest.raises(DecodeError):
        limited_readers(LIMITS)["Adapt"](content)

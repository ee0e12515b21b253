"""Takes the data of large tensors out of requests as they arrive, so that nobody copies them.

Protobuf copies every field when it parses a message, and copies a bytes field again when it is read. So this module
walks the bytes of a request itself, makes views of the data of its tensors, and has protobuf parse the rest.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from google.protobuf.message import DecodeError, Message

M = TypeVar("M", bound=Message)

Detached: TypeAlias = Mapping[str, memoryview]
"""The data of tensors, by the tensor's path in the request, such as "support.inputs.tensor"; the message lacks them."""

NOTHING: Detached = MappingProxyType({})

THRESHOLD = 256 * 1024
"""Bytes of data from which on walking a message in Python costs less time than copying the data twice."""

MOST_FIELDS = 32
"""Most fields of a message that is walked in Python; a message with more is left to protobuf, which copes with
millions."""

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
SIZES = {FIXED64: 8, FIXED32: 4}
TAG_BYTES, TAG_BITS, VARINT_BYTES = 5, 32, 10


@dataclass(frozen=True, slots=True)
class Received(Generic[M]):
    """A request.

    Attributes:
        message: the parsed request, without the detached data.
        detached: data of large tensors.
        size_bytes: of all that arrived.
    """

    message: M
    detached: Detached
    size_bytes: int


def detaching(kind: type[M], *paths: str) -> Callable[[bytes], Received[M]]:
    """A function that reads requests.

    Args:
        kind: class of the request.
        paths: of the tensors whose data shall be detached when it is large.
    """
    route = _Route()
    for path in paths:
        route.add(kind.DESCRIPTOR, path)

    def read(content: bytes) -> Received[M]:
        if len(content) >= THRESHOLD:
            detached: dict[str, memoryview] = {}
            try:
                pieces = list(_strip(memoryview(content), route, detached))
                if detached:
                    return Received(kind.FromString(b"".join(pieces)), detached, len(content))
            except (_OrdinaryParse, DecodeError):
                pass  # protobuf reads the request unchanged and judges it
        return Received(kind.FromString(content), NOTHING, len(content))

    return read


class _OrdinaryParse(Exception):  # noqa: N818 - nothing is wrong
    """The walk can't go on: protobuf must read the message unchanged."""


class _Route:
    """A tree of the field numbers that lead to data; its leaves hold the tensor's path."""

    def __init__(self) -> None:
        self.path = ""
        self.fields: dict[int, _Route] = {}

    def add(self, message: Any, path: str) -> None:
        """Add a tensor of the message that a descriptor describes."""
        route = self
        for name in (*path.split("."), "data"):
            field = message.fields_by_name[name]
            route = route.fields.setdefault(field.number, _Route())
            message = field.message_type
        route.path = path


class _Field(NamedTuple):
    """One field of a message: its number, where its tag begins, and where its content starts and ends."""

    number: int
    begin: int
    is_bytes: bool
    start: int
    end: int


def _strip(message: memoryview, route: _Route, detached: dict[str, memoryview]) -> Iterator[bytes | memoryview]:
    """The pieces of a message without the data that is put into `detached`.

    A field that leads to data must occur once: protobuf would merge repeated ones.

    Raises:
        _OrdinaryParse: the message is damaged, or repeats such a field.
    """
    seen: set[int] = set()
    kept = 0
    for found in _fields(message):
        onwards = route.fields.get(found.number)
        if onwards is None:
            continue
        if found.number in seen or not found.is_bytes:
            raise _OrdinaryParse
        seen.add(found.number)
        content = message[found.start : found.end]
        if len(content) < THRESHOLD:
            continue
        yield message[kept : found.begin]
        kept = found.end
        if onwards.path:
            detached[onwards.path] = content
        else:
            inner = list(_strip(content, onwards, detached))
            yield _varint(found.number << 3 | LENGTH)
            yield _varint(sum(map(len, inner)))
            yield from inner
    yield message[kept:]


def _fields(message: memoryview) -> Iterator[_Field]:
    position, end, count = 0, len(message), 0
    while position < end:
        count += 1
        if count > MOST_FIELDS:
            raise _OrdinaryParse
        begin = position
        tag, position = _read_varint(message, position, TAG_BYTES)
        if tag >> TAG_BITS:
            raise _OrdinaryParse
        wire_type = tag & 7
        start = position
        if wire_type == LENGTH:
            size, start = _read_varint(message, position, TAG_BYTES)
            position = start + size
        elif wire_type == VARINT:
            _, position = _read_varint(message, position, VARINT_BYTES)
        elif wire_type in SIZES:
            position += SIZES[wire_type]
        else:
            raise _OrdinaryParse
        if position > end:
            raise _OrdinaryParse
        yield _Field(tag >> 3, begin, wire_type == LENGTH, start, position)


def _read_varint(message: memoryview, position: int, most_bytes: int) -> tuple[int, int]:
    """A number, and where it ends."""
    value = 0
    for index, byte in enumerate(message[position : position + most_bytes]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, position + index + 1
    raise _OrdinaryParse


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)

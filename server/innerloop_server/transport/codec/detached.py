"""Takes the data of large tensors out of requests as they arrive, so that nobody copies them.

Parsing copies every field, and reading a bytes field copies it again. Instead, the bytes of a request are walked as far
as the data of its tensors; these become views into the request, and protobuf parses what is left.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from google.protobuf.message import DecodeError, Message

M = TypeVar("M", bound=Message)

Detached: TypeAlias = Mapping[str, memoryview]
"""Data of tensors by their paths in the request, as in "support.inputs.tensor"; left out of the message itself."""

NOTHING: Detached = MappingProxyType({})

THRESHOLD = 256 * 1024
"""Bytes of data from which a walk in Python costs less than two copies."""

MOST_FIELDS = 32
"""Of one message, for a walk: whoever sends more gets the ordinary parse, which takes millions in its stride."""

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
SIZES = {FIXED64: 8, FIXED32: 4}
TAG_BYTES, TAG_BITS, VARINT_BYTES = 5, 32, 10


@dataclass(frozen=True, slots=True)
class Received(Generic[M]):
    """A request.

    Attributes:
        message: as parsed, the detached data missing.
        detached: data of large tensors.
    """

    message: M
    detached: Detached


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
                    return Received(kind.FromString(b"".join(pieces)), detached)
            except (_OrdinaryParse, DecodeError):
                pass  # protobuf shall judge the request as it came
        return Received(kind.FromString(content), NOTHING)

    return read


class _OrdinaryParse(Exception):  # noqa: N818 - nothing is wrong
    """The walk leads nowhere."""


class _Route:
    """Where to look for data: field numbers that lead there, at the end of which stands the tensor's path."""

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
    """One field of a message: its number, and where its tag and its content begin and end."""

    number: int
    begin: int
    is_bytes: bool
    start: int
    end: int


def _strip(message: memoryview, route: _Route, detached: dict[str, memoryview]) -> Iterator[bytes | memoryview]:
    """The pieces of a message without the data that is put into `detached`.

    A field that leads to data must stand there once: protobuf merges what is repeated.

    Raises:
        _OrdinaryParse: the message is damaged, or not as simple as that.
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

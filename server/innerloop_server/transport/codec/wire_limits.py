"""Counts the fields of a request before protobuf parses it.

Protobuf takes tens of bytes of memory for a field of two: 60 MiB of empty labels are a gigabyte once they are parsed.
So the bytes of a large request are walked first, and a request is refused as soon as it holds more fields than its
method can need.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from innerloop_server.domain.errors import FieldViolation, InvalidRequestError

T = TypeVar("T")

WALKED_BYTES = 256 * 1024
"""Bytes from which on a request is walked; a smaller one can't hold enough fields to matter."""

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
LONGEST_VARINT = 10


class _Shape:
    """Fields of a message that are messages themselves, and those that are packed numbers."""

    def __init__(self, kind: Any, known: dict[str, "_Shape"]) -> None:
        known[kind.full_name] = self
        self.messages: dict[int, _Shape] = {}
        self.packed: set[int] = set()
        for field in kind.fields:
            if field.message_type is not None:
                inner = field.message_type
                self.messages[field.number] = known.get(inner.full_name) or _Shape(inner, known)
            elif field.is_repeated and field.type not in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
                self.packed.add(field.number)


def limited(kind: type[Message], read: Callable[[bytes], T], most: int) -> Callable[[bytes], T]:
    """A function that reads requests of at most `most` fields, those of messages within them included.

    Args:
        kind: class of the requests.
        read: reads a request that is small enough.
        most: a packed number counts by its bytes.

    Returns:
        a function that raises InvalidRequestError for a request of more fields, and DecodeError for a damaged one.
    """
    shape = _Shape(kind.DESCRIPTOR, {})

    def reader(content: bytes) -> T:
        if len(content) >= WALKED_BYTES:
            _walk(content, shape, most)
        return read(content)

    return reader


def _walk(content: bytes, shape: _Shape, most: int) -> None:
    position, left = 0, most
    around: list[tuple[int, _Shape]] = []  # ends and shapes of the messages that this one lies in
    end = len(content)
    while True:
        if left < 0:
            raise InvalidRequestError([FieldViolation("message", f"holds more than {most:,} fields; send less")])
        while position >= end:
            if position > end:
                raise DecodeError("a field is longer than its message")
            if not around:
                return
            end, shape = around.pop()
        left -= 1
        tag, position = _varint(content, position, end)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == LENGTH:
            size, position = _varint(content, position, end)
            inner = shape.messages.get(number)
            if inner is not None and position + size <= end:
                around.append((end, shape))
                end, shape = position + size, inner
                continue
            if number in shape.packed:
                left -= size
            position += size
        elif wire_type == VARINT:
            _, position = _varint(content, position, end)
        elif wire_type == FIXED64:
            position += 8
        elif wire_type == FIXED32:
            position += 4
        else:
            raise DecodeError("no message of this server has groups")


def _varint(content: bytes, position: int, end: int) -> tuple[int, int]:
    """A number, and where it ends."""
    value = shift = 0
    for index in range(position, min(end, position + LONGEST_VARINT)):
        byte = content[index]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, index + 1
        shift += 7
    raise DecodeError("a number has no end")


def at_most(most: int, read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """A function that reads requests of at most `most` bytes, and raises InvalidRequestError for others."""

    def reader(content: bytes) -> Any:
        if len(content) > most:
            raise InvalidRequestError(
                [FieldViolation("message", f"has {len(content):,} bytes, at most {most:,} are accepted")]
            )
        return read(content)

    return reader

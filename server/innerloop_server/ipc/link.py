"""Messages between two processes, over a pair of sockets."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import msgspec

Received = TypeVar("Received")

LENGTH_BYTES = 4
_encoder = msgspec.msgpack.Encoder()


class Link(asyncio.Protocol, Generic[Received]):
    """Sends and receives messages, each led by its length.

    Args:
        kind: type of the messages that come in.
        receive: is called with each of them.
        lost: is called when the other process has ended, or what it sent makes no sense.
    """

    def __init__(self, kind: Any, receive: Callable[[Received], None], lost: Callable[[], None]) -> None:
        self._decoder: msgspec.msgpack.Decoder[Received] = msgspec.msgpack.Decoder(kind)
        self._receive = receive
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._outgoing = bytearray()
        self._incomplete = bytearray()
        self._needed = LENGTH_BYTES  # size that `_incomplete` must have before it is worth looking at

    async def open(self, end: socket.socket) -> None:
        """Begin, on one end of a pair of sockets."""
        end.setblocking(False)
        await self._loop.create_connection(lambda: self, sock=end)

    def send(self, message: msgspec.Struct) -> None:
        """Send a message, together with all others of this turn of the event loop; dropped when nobody listens."""
        if self._transport is None:
            return
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        content = _encoder.encode(message)
        self._outgoing += len(content).to_bytes(LENGTH_BYTES)
        self._outgoing += content

    def close(self) -> None:
        """End the link; `lost` is called."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        del exc
        self._transport = None
        self._lost()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio with whatever has come."""
        if self._incomplete:
            self._incomplete += data
            if len(self._incomplete) < self._needed:
                return
            data = bytes(self._incomplete)
            self._incomplete.clear()
        view, position = memoryview(data), 0
        while True:
            self._needed = LENGTH_BYTES
            if len(data) - position >= LENGTH_BYTES:
                self._needed += int.from_bytes(view[position : position + LENGTH_BYTES])
            if len(data) - position < self._needed or self._needed == LENGTH_BYTES:
                break
            self._receive(self._decoder.decode(view[position + LENGTH_BYTES : position + self._needed]))
            position += self._needed
        self._incomplete += view[position:]

    def _flush(self) -> None:
        if self._transport is not None:
            self._transport.write(bytes(self._outgoing))
        self._outgoing.clear()

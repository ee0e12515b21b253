"""Messages between a process and a child that has no event loop: each is read as a whole, by a call that may block."""

import socket
from collections.abc import Sequence
from typing import Any

import msgspec

LARGEST_PACKET = 2**17
"""Most bytes of one message."""


def packet_sockets() -> tuple[socket.socket, socket.socket]:
    """Two ends, between which messages travel as a whole."""
    return socket.socketpair(type=socket.SOCK_SEQPACKET)


def send_packet(end: socket.socket, message: msgspec.Struct, descriptors: Sequence[int] = ()) -> None:
    """Send a message, and file descriptors with it.

    Raises:
        ValueError: it is too large.
        OSError: the other process has ended.
    """
    content = msgspec.msgpack.encode(message)
    if len(content) > LARGEST_PACKET:  # the other end would read a part of it
        raise ValueError("the message is too large")
    if descriptors:
        socket.send_fds(end, [content], descriptors)
    else:
        end.send(content)


def receive_packet(end: socket.socket, kind: Any) -> Any:
    """Wait for a message of a kind that comes without descriptors.

    Raises:
        EOFError: the other process has ended.
    """
    return _decode(end.recv(LARGEST_PACKET), kind)


def receive_packet_with_descriptors(end: socket.socket, kind: Any) -> tuple[Any, list[int]]:
    """Wait for a message of a kind, and up to one descriptor with it, which the caller must close.

    Raises:
        EOFError: the other process has ended.
    """
    content, descriptors, _, _ = socket.recv_fds(end, LARGEST_PACKET, 1, socket.MSG_CMSG_CLOEXEC)
    return _decode(content, kind), descriptors


def _decode(content: bytes, kind: Any) -> Any:
    if not content:
        raise EOFError
    return msgspec.msgpack.decode(content, type=kind)

"""What the engine's process and its workers say to each other. Tensors lie in memory that they share."""

import socket
from typing import Any

import msgspec

from innerloop_learner.layers import TaskConvolution
from innerloop_server.engine.states.layout import PlainShapes

LARGEST_MESSAGE, LONGEST_REASON = 2**17, 2**12


class TensorAt(msgspec.Struct, frozen=True, array_like=True):
    """Where a tensor lies in the shared memory."""

    offset: int
    dtype: str
    shape: tuple[int, ...]


class LoadOrder(msgspec.Struct, frozen=True, tag=True):
    """Take up a model: the spec of its learner as JSON data, and its parameters."""

    model: int
    spec: dict[str, Any]
    precision: str
    params: dict[str, TensorAt]


class ForgetOrder(msgspec.Struct, frozen=True, tag=True):
    """A model will not be asked for again."""

    model: int


class AdaptOrder(msgspec.Struct, frozen=True, tag=True):
    """Learn tasks; arguments as those of `Computation.adapt`."""

    model: int
    task_convolution: TaskConvolution | None
    inputs: tuple[TensorAt, ...]
    steps: int
    width: int


class PredictOrder(msgspec.Struct, frozen=True, tag=True):
    """Answer queries; arguments as those of `Computation.predict`."""

    model: int
    task_convolution: TaskConvolution | None
    inputs: tuple[TensorAt, ...]
    layout: PlainShapes


Order = LoadOrder | ForgetOrder | AdaptOrder | PredictOrder


class Done(msgspec.Struct, frozen=True, tag=True):
    """An order was carried out."""

    outputs: tuple[TensorAt, ...] = ()
    layout: PlainShapes = ()


class Failed(msgspec.Struct, frozen=True, tag=True):
    """An order could not be carried out."""

    why: str


Reply = Done | Failed


def connect() -> tuple[socket.socket, socket.socket]:
    """Two ends, between which messages travel as a whole."""
    return socket.socketpair(type=socket.SOCK_SEQPACKET)


def send(end: socket.socket, message: msgspec.Struct) -> None:
    """Send a message.

    Raises:
        ValueError: it is too large.
        OSError: the other process has ended.
    """
    content = msgspec.msgpack.encode(message)
    if len(content) > LARGEST_MESSAGE:  # the other end would read a part of it
        raise ValueError("the message is too large")
    end.send(content)


def receive(end: socket.socket, kind: Any) -> Any:
    """Wait for a message of a kind.

    Raises:
        EOFError: the other process has ended.
    """
    content = end.recv(LARGEST_MESSAGE)
    if not content:
        raise EOFError
    return msgspec.msgpack.decode(content, type=kind)

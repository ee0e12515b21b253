"""Task states of ONNX graphs as bytes that outlive the process."""

from collections.abc import Mapping
from math import prod
from typing import Literal

import msgspec
import numpy as np

from innerloop_server.domain.tasks import Array
from innerloop_server.engine.interface import StateMismatchError


class _TensorBytes(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """One tensor: its name, NumPy's name of its little-endian type, its shape and its content."""

    name: str
    dtype: Literal["<f4", "<f8", "<f2", "<i8", "<i4", "|u1", "|b1"]
    shape: tuple[int, ...]
    content: bytes


class _StateBytes(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """One state on its way to or from a store; a change of the structure takes another name of the format."""

    format: Literal["onnx 1"]
    ways: int
    tensors: list[_TensorBytes]


_decoder = msgspec.msgpack.Decoder(_StateBytes)


def to_bytes(tensors: Mapping[str, Array], ways: int) -> bytes:
    """A state [1, ...] as bytes.

    Args:
        tensors: of the state, by name.
        ways: classes of the task.
    """
    parts = []
    for name, tensor in tensors.items():
        little = np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("<"))
        parts.append(_TensorBytes(name, little.dtype.str, tensor.shape, little.tobytes()))  # type: ignore[arg-type]
    return msgspec.msgpack.encode(_StateBytes("onnx 1", ways, parts))


def from_bytes(content: bytes) -> tuple[dict[str, Array], int]:
    """The tensors and ways of a state that `to_bytes` wrote.

    Raises:
        StateMismatchError: it is something else.
    """
    try:
        state = _decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StateMismatchError(f"it is no task state of this backend: {error}") from error
    tensors: dict[str, Array] = {}
    for part in state.tensors:
        dtype = np.dtype(part.dtype)
        if min(part.shape, default=1) < 0 or prod(part.shape) * dtype.itemsize != len(part.content):
            raise StateMismatchError(f"the size of {part.name} is not that of its shape")
        tensors[part.name] = np.frombuffer(part.content, dtype).reshape(part.shape)
    return tensors, state.ways

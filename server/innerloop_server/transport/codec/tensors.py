"""Tensor messages to arrays and back."""

import math
import sys
from typing import Any

import numpy as np

from innerloop.v1 import tensor_pb2
from innerloop_server.domain.tasks import Array
from innerloop_server.transport.codec.detached import NOTHING, Detached
from innerloop_server.transport.codec.violations import Violations

DTYPES: dict[int, np.dtype[Any]] = {
    tensor_pb2.DATA_TYPE_UINT8: np.dtype("u1"),
    tensor_pb2.DATA_TYPE_INT64: np.dtype("<i8"),
    tensor_pb2.DATA_TYPE_FLOAT16: np.dtype("<f2"),
    tensor_pb2.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    tensor_pb2.DATA_TYPE_FLOAT64: np.dtype("<f8"),
}


def decode_tensor(
    message: tensor_pb2.Tensor,
    field: str,
    example_shape: tuple[int, ...],
    violations: Violations,
    detached: Detached = NOTHING,
) -> Array | None:
    """Examples [N, *example_shape] as uint8 or float32; other element types are converted to float32.

    Elements of detached uint8 and float32 tensors are not copied; the array is then read-only and may be unaligned.
    Other uint8 and float32 elements are copied once, out of the message.

    Args:
        message: the tensor.
        field: its path, for violations.
        example_shape: what each example must look like.
        violations: receives what is wrong.
        detached: data of the request's tensors that were too large to be parsed.

    Returns:
        None when something is wrong.
    """
    dtype = DTYPES.get(message.data_type)
    if dtype is None:
        violations.add(f"{field}.data_type", "names no element type")
        return None
    shape = tuple(message.shape[: len(example_shape) + 2])  # there may be millions of them
    if len(shape) != len(example_shape) + 1 or shape[1:] != example_shape or shape[0] < 0:
        wanted = ", ".join(["N", *map(str, example_shape)])
        violations.add(f"{field}.shape", f"is {list(shape)}, must be [{wanted}]")
        return None
    expected = math.prod(shape) * dtype.itemsize
    data = detached.get(field) or message.data  # reading the field makes a copy
    if len(data) != expected:
        violations.add(f"{field}.data", f"has {len(data)} bytes, {list(shape)} of {dtype.name} takes {expected}")
        return None
    array = np.frombuffer(data, dtype).reshape(shape)
    if array.dtype == np.uint8:
        return array
    with np.errstate(over="ignore"):  # what float32 can't hold becomes infinite, and is refused below
        array = array.astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        violations.add(f"{field}.data", "contains values that are not finite")
        return None
    return array


def encode_tensor(array: Array) -> tensor_pb2.Tensor:
    """The message of a float32 array."""
    if sys.byteorder == "big":
        array = array.byteswap()
    return tensor_pb2.Tensor(data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=array.shape, data=array.tobytes())


def encode_flags(flags: Array) -> tensor_pb2.Tensor:
    """The message of a boolean array, as uint8."""
    return tensor_pb2.Tensor(data_type=tensor_pb2.DATA_TYPE_UINT8, shape=flags.shape, data=flags.tobytes())

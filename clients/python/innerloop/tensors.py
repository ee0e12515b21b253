"""Arrays on the wire."""

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from innerloop.errors import InnerloopError, InvalidArgumentError
from innerloop.v1 import tensor_pb2 as pb

Array = NDArray[Any]

_DTYPES: dict[pb.DataType, np.dtype[Any]] = {
    pb.DATA_TYPE_UINT8: np.dtype("u1"),
    pb.DATA_TYPE_INT64: np.dtype("<i8"),
    pb.DATA_TYPE_FLOAT16: np.dtype("<f2"),
    pb.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    pb.DATA_TYPE_FLOAT64: np.dtype("<f8"),
}

_SENT_AS: dict[np.dtype[Any], pb.DataType] = {
    np.dtype("uint8"): pb.DATA_TYPE_UINT8,
    np.dtype("float16"): pb.DATA_TYPE_FLOAT16,
    np.dtype("float32"): pb.DATA_TYPE_FLOAT32,
    # Models compute in float32: rounding here gives the same answers for half the bytes.
    np.dtype("float64"): pb.DATA_TYPE_FLOAT32,
    np.dtype("int8"): pb.DATA_TYPE_INT64,
    np.dtype("int16"): pb.DATA_TYPE_INT64,
    np.dtype("int32"): pb.DATA_TYPE_INT64,
    np.dtype("int64"): pb.DATA_TYPE_INT64,
    np.dtype("uint16"): pb.DATA_TYPE_INT64,
    np.dtype("uint32"): pb.DATA_TYPE_INT64,
}


def wire_bytes(array: Array) -> int:
    """Bytes of `array` on the wire; those in memory where it has no place there.

    Example:
        >>> wire_bytes(np.zeros((2, 3))), wire_bytes(np.zeros((2, 3), np.uint8))
        (24, 6)
    """
    data_type = _SENT_AS.get(array.dtype.newbyteorder("="))
    return array.nbytes if data_type is None else array.size * _DTYPES[data_type].itemsize


def encode_tensor(array: Array) -> pb.Tensor:
    """The message that carries `array`, row-major; float64 travels as float32, other integers than uint8 as int64.

    Raises:
        InvalidArgumentError: its element type has no place on the wire.
    """
    data_type = _SENT_AS.get(array.dtype.newbyteorder("="))
    if data_type is None:
        hint = "; for images send uint8 from 0 to 255" if array.dtype == np.bool_ else ""
        raise InvalidArgumentError(f"arrays of {array.dtype} can't be sent{hint}")
    data = array.astype(_DTYPES[data_type], copy=False).tobytes()
    return pb.Tensor(data_type=data_type, shape=array.shape, data=data)


def decode_tensor(message: pb.Tensor) -> Array:
    """The array that a message carries, read-only, not copied again.

    Raises:
        InnerloopError: the message contradicts itself.
    """
    try:
        array = np.frombuffer(message.data, _DTYPES[message.data_type]).reshape(message.shape)
    except (KeyError, ValueError) as error:
        raise InnerloopError(f"the server sent a malformed tensor: {error}") from error
    return array if sys.byteorder == "little" else array.astype(array.dtype.newbyteorder("="))

"""Task states as bytes that outlive the process: shapes and types, then the words as they lie in memory."""

from math import prod
from typing import Literal

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from innerloop_server.engine.interface import StateMismatchError
from innerloop_server.engine.pytorch.state_layout import PlainShapes, Shapes, StateLayout, from_plain, to_plain

MOST_WORDS = 2**31
"""Words of a state that nobody writes: more are refused before anything is computed with such shapes."""


class _StateBytes(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """One state on its way to or from a store.

    Attributes:
        format: of this structure and of `StateLayout`; a change of either takes another name.
        ways: classes of the task.
        shapes: of the tensors, in the layout's order.
        words: of the layout, 32 bits each, little-endian.
    """

    format: Literal["pytorch 1"]
    ways: int
    shapes: PlainShapes
    words: bytes


_decoder = msgspec.msgpack.Decoder(_StateBytes)


def to_bytes(layout: StateLayout, row: NDArray[np.int32], ways: int) -> bytes:
    """A state as bytes.

    Args:
        layout: of the state.
        row: its words, [pages * PAGE_WORDS].
        ways: classes of the task.
    """
    words = row[: layout.words].astype("<i4", copy=False).tobytes()
    return msgspec.msgpack.encode(_StateBytes("pytorch 1", ways, to_plain(layout.shapes), words))


def from_bytes(content: bytes) -> tuple[Shapes, NDArray[np.int32], int]:
    """Shapes, words and ways of a state that `to_bytes` wrote.

    Raises:
        StateMismatchError: it is something else.
    """
    try:
        state = _decoder.decode(content)
        shapes = from_plain(state.shapes)
    except (msgspec.DecodeError, UnicodeDecodeError, AttributeError) as error:
        raise StateMismatchError(f"it is no task state of this backend: {error}") from error
    names = [name for name, _, _ in shapes]
    sizes = [prod(shape) for _, shape, _ in shapes if min(shape, default=0) >= 0]
    if not names or names != sorted({*names}) or len(sizes) < len(names) or max(sizes) > MOST_WORDS:
        raise StateMismatchError("its shapes are not those of a task state")
    if not all(isinstance(dtype, torch.dtype) for _, _, dtype in shapes):
        raise StateMismatchError("its types are not those of a task state")
    if len(state.words) != 4 * StateLayout(shapes).words:
        raise StateMismatchError("its size is not that of its shapes")
    return shapes, np.frombuffer(state.words, "<i4").astype(np.int32, copy=False), state.ways

"""Stacks arrays of different lengths into one batch, zeros behind the shorter ones."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from innerloop_server.engine.interface import Array


def stack(arrays: Sequence[Array]) -> Array:
    """Arrays [N_i, ...] of one element type as one fresh array [T, max N_i, ...].

    Always a copy: the arrays may lie in read-only memory of a request.
    """
    longest = max(len(array) for array in arrays)
    batch = np.zeros((len(arrays), longest, *arrays[0].shape[1:]), arrays[0].dtype)
    for row, array in zip(batch, arrays, strict=True):
        row[: len(array)] = array
    return batch


def mask(lengths: Sequence[int]) -> NDArray[np.bool_]:
    """True where a row of `stack` holds a real example, [T, max N_i]."""
    positions: NDArray[np.bool_] = np.arange(max(lengths)) < np.asarray(lengths)[:, None]
    return positions

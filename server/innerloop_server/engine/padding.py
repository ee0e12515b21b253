"""Arrays of different lengths as one batch in memory that the device reads from."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from innerloop_server.engine.interface import Array

Allocate = Callable[[Sequence[int], torch.dtype], Tensor]
"""Makes host memory of a shape and element type, of any content."""

DTYPES: dict[np.dtype[Any], torch.dtype] = {
    np.dtype(np.uint8): torch.uint8,
    np.dtype(np.float32): torch.float32,
    np.dtype(np.int64): torch.int64,
}


def stack(arrays: Sequence[Array], tasks: int, longest: int, allocate: Allocate) -> Tensor:
    """Arrays [N_i, ...] of one element type as one batch [tasks, longest, ...].

    The one copy that inputs make on the host. Zeros stand behind shorter arrays; where there are fewer arrays than
    tasks, the first one stands in for those that miss, so that even they are ordinary numbers.
    """
    batch = allocate((tasks, longest, *arrays[0].shape[1:]), DTYPES[arrays[0].dtype])
    rows = batch.numpy()
    for row, array in zip(rows, arrays, strict=False):
        row[: len(array)] = array
        row[len(array) :] = 0
    rows[len(arrays) :] = rows[0]
    return batch


def mask(lengths: Sequence[int], tasks: int, longest: int, allocate: Allocate) -> Tensor:
    """True where `stack` puts a real example, [tasks, longest]."""
    batch = allocate((tasks, longest), torch.bool)
    rows = batch.numpy()
    np.less(np.arange(longest), np.asarray(lengths)[:, None], out=rows[: len(lengths)])
    rows[len(lengths) :] = rows[0]
    return batch

"""Arrays of different lengths as one batch in memory that a PyTorch device reads from."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from innerloop_server.domain.tasks import Array
from innerloop_server.engine.padding import fill, fill_mask

Allocate = Callable[[Sequence[int], torch.dtype], Tensor]
"""Makes uninitialised host memory of a shape and element type."""

DTYPES: dict[np.dtype[Any], torch.dtype] = {
    np.dtype(np.uint8): torch.uint8,
    np.dtype(np.float32): torch.float32,
    np.dtype(np.int64): torch.int64,
}


def stack(arrays: Sequence[Array], tasks: int, longest: int, allocate: Allocate) -> Tensor:
    """Arrays [N_i, ...] of one element type as one batch [tasks, longest, ...], filled as `padding.fill` does."""
    batch = allocate((tasks, longest, *arrays[0].shape[1:]), DTYPES[arrays[0].dtype])
    fill(batch.numpy(), arrays)
    return batch


def mask(lengths: Sequence[int], tasks: int, longest: int, allocate: Allocate) -> Tensor:
    """True where `stack` puts a real example, [tasks, longest]."""
    batch = allocate((tasks, longest), torch.bool)
    fill_mask(batch.numpy(), lengths)
    return batch

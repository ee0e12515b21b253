"""Arrays of different lengths as one batch."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from innerloop_server.domain.tasks import Array


def stack(arrays: Sequence[Array], tasks: int, longest: int) -> Array:
    """Arrays [N_i, ...] of one element type as one new batch [tasks, longest, ...], filled as `fill` does."""
    batch = np.empty((tasks, longest, *arrays[0].shape[1:]), arrays[0].dtype)
    fill(batch, arrays)
    return batch


def mask(lengths: Sequence[int], tasks: int, longest: int) -> NDArray[np.bool_]:
    """True where `stack` puts a real example, [tasks, longest]."""
    batch = np.empty((tasks, longest), np.bool_)
    fill_mask(batch, lengths)
    return batch


def fill(rows: Array, arrays: Sequence[Array]) -> None:
    """Overwrite a batch [tasks, longest, ...] with arrays [N_i, ...], one a row.

    Shorter arrays are followed by zeros. Where there are fewer arrays than tasks, the rows left over repeat the first
    one, so that even what nobody asked for is computed from ordinary numbers.
    """
    for row, array in zip(rows, arrays, strict=False):
        row[: len(array)] = array
        row[len(array) :] = 0
    rows[len(arrays) :] = rows[0]


def fill_mask(rows: NDArray[np.bool_], lengths: Sequence[int]) -> None:
    """Write True to [tasks, longest] where `fill` puts a real example, False elsewhere."""
    np.less(np.arange(rows.shape[1]), np.asarray(lengths)[:, None], out=rows[: len(lengths)])
    rows[len(lengths) :] = rows[0]

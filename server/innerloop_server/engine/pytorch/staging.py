"""Tensors in memory that two processes share."""

import mmap
import os
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from innerloop_server.domain.tasks import Array
from innerloop_server.engine.pytorch.worker_messages import TensorAt

ALIGNMENT = 64


class Staging:
    """One mapping of shared memory; of both processes, only one uses it at a time.

    Arrays are placed and copied by NumPy: PyTorch gives the interpreter away in each of its calls, and where other
    threads are busy, a thread waits for it longer than such a call takes.

    Args:
        descriptor: of the memory.
    """

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, os.fstat(descriptor).st_size)

    def fits(self, tensors: Iterable[Tensor], after: int = 0) -> bool:
        """Whether there is room for tensors behind that many bytes."""
        return after + sum(tensor.nbytes + ALIGNMENT for tensor in tensors) <= len(self._memory)

    def put(self, tensors: Iterable[Tensor], after: int = 0) -> tuple[TensorAt, ...]:
        """Copy tensors in, behind that many bytes; returns where they lie."""
        places = []
        for tensor in tensors:
            array = tensor.numpy()
            after = -(-after // ALIGNMENT) * ALIGNMENT
            place = TensorAt(after, array.dtype.name, array.shape)
            np.copyto(self._array(place), array)
            places.append(place)
            after += array.nbytes
        return tuple(places)

    def at(self, place: TensorAt) -> Tensor:
        """A view of the tensor that lies there."""
        return torch.from_numpy(self._array(place))

    def _array(self, place: TensorAt) -> Array:
        return np.ndarray(place.shape, place.dtype, self._memory, place.offset)


def end_of(places: Iterable[TensorAt]) -> int:
    """The first byte behind tensors at these places."""
    return max(
        (place.offset + torch.Size(place.shape).numel() * np.dtype(place.dtype).itemsize for place in places),
        default=0,
    )

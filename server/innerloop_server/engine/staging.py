"""Tensors in memory that two processes share."""

import mmap
import os
from collections.abc import Iterable

import torch
from torch import Tensor

from innerloop_server.engine.worker_messages import TensorAt

ALIGNMENT = 64


class Staging:
    """One mapping of shared memory; of both processes, only one uses it at a time.

    Args:
        descriptor: of the memory.
    """

    def __init__(self, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        self._words = torch.frombuffer(mmap.mmap(descriptor, size), dtype=torch.uint8)

    def fits(self, tensors: Iterable[Tensor], after: int = 0) -> bool:
        """Whether there is room for tensors behind that many bytes."""
        return after + sum(tensor.nbytes + ALIGNMENT for tensor in tensors) <= len(self._words)

    def put(self, tensors: Iterable[Tensor], after: int = 0) -> tuple[TensorAt, ...]:
        """Copy tensors in, behind that many bytes; returns where they lie."""
        places = []
        for tensor in tensors:
            after = -(-after // ALIGNMENT) * ALIGNMENT
            place = TensorAt(after, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
            self.at(place).copy_(tensor)
            places.append(place)
            after += tensor.nbytes
        return tuple(places)

    def at(self, place: TensorAt) -> Tensor:
        """A view of the tensor that lies there."""
        dtype = getattr(torch, place.dtype)
        size = torch.Size(place.shape).numel() * dtype.itemsize
        return self._words[place.offset : place.offset + size].view(dtype).view(place.shape)


def end_of(places: Iterable[TensorAt]) -> int:
    """The first byte behind tensors at these places."""
    return max(
        (place.offset + torch.Size(place.shape).numel() * getattr(torch, place.dtype).itemsize for place in places),
        default=0,
    )

"""Arrays in memory that two processes share: where each lies, as messages say it, and views of them."""

import math
from collections.abc import Iterable
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from innerloop_server.ipc.allocator import aligned


class ArrayAt(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The place of an array in a memory.

    Attributes:
        offset: from the start of the memory that it lies in, in bytes.
        dtype: element type, as NumPy writes it.
        shape: of the array.
    """

    offset: int
    dtype: Literal["|u1", "|b1", "<i4", "<i8", "<f2", "<f4", "<f8"]
    shape: tuple[int, ...]

    @property
    def end(self) -> int:
        """The first byte behind the array."""
        return self.offset + math.prod(self.shape) * np.dtype(self.dtype).itemsize


def lay_out(arrays: Iterable[NDArray[Any]], start: int = 0) -> list[ArrayAt]:
    """Places for arrays one behind the other, the first at an offset of `start` bytes or a little behind."""
    places = []
    for array in arrays:
        place = ArrayAt(aligned(start), array.dtype.str, array.shape)  # type: ignore[arg-type]
        places.append(place)
        start = place.end
    return places


def end_of(places: Iterable[ArrayAt]) -> int:
    """The first byte behind all of these places."""
    return max((place.end for place in places), default=0)


def array_in(memory: NDArray[np.uint8], place: ArrayAt) -> NDArray[Any]:
    """A view of the array at a place of a memory.

    Raises:
        ValueError: the place is not within the memory.
    """
    return memory[place.offset : place.end].view(place.dtype).reshape(place.shape)


def write(memory: NDArray[np.uint8], arrays: Iterable[NDArray[Any]], start: int = 0) -> tuple[ArrayAt, ...]:
    """Copy arrays into a memory, behind so many bytes; returns where they lie.

    Raises:
        ValueError: there is no room for them.
    """
    arrays = list(arrays)
    places = lay_out(arrays, start)
    if end_of(places) > len(memory):
        raise ValueError(f"{end_of(places)} bytes are more than the {len(memory)} of the shared memory")
    for place, array in zip(places, arrays, strict=True):
        np.copyto(array_in(memory, place), array)
    return tuple(places)

"""Memory that a front end and the engine process share."""

import math
import mmap
import os
from typing import Self

import numpy as np
from numpy.typing import NDArray

from innerloop_server.domain.tasks import Array
from innerloop_server.frontend.messages import ArrayAt
from innerloop_server.ipc.allocator import Block
from innerloop_server.ipc.shared_memory import create_shared_memory


class Segment:
    """One mapping of shared memory; it lasts as long as anything refers to it or to a part of it.

    Args:
        descriptor: of the memory; taken over.

    Attributes:
        descriptor: to be handed to another process.
        size: in bytes.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.size = os.fstat(descriptor).st_size
        try:
            self._memory = mmap.mmap(descriptor, self.size)
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, size: int) -> Self:
        """New shared memory; takes up space only where it has been written to."""
        return cls(create_shared_memory("innerloop-frontend", size))

    def block(self, block: Block) -> NDArray[np.uint8]:
        """The bytes of a block.

        Arrays made of them refer to this one array: when it is freed, nothing reads the block any more.

        Raises:
            ValueError: the block is not within the segment.
        """
        return np.frombuffer(self._memory, np.uint8, block.size, block.offset)

    def close(self) -> None:
        """Close the descriptor; the mapping stays."""
        os.close(self.descriptor)


def array_in(block: NDArray[np.uint8], place: ArrayAt) -> Array:
    """The array at a place of a block.

    Raises:
        ValueError: the place is not within the block.
    """
    dtype = np.dtype(place.dtype)
    size = math.prod(place.shape) * dtype.itemsize
    return block[place.offset : place.offset + size].view(dtype).reshape(place.shape)

"""Memory that two processes share."""

import mmap
import os
from typing import Self

import numpy as np
from numpy.typing import NDArray

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
    def create(cls, size: int, name: str = "innerloop-frontend") -> Self:
        """New shared memory; it takes up space only where it has been written to, and its name only shows in /proc.

        Raises:
            OSError: there is none to be had.
        """
        return cls(create_shared_memory(name, size))

    @property
    def whole(self) -> NDArray[np.uint8]:
        """All bytes."""
        return self.block(Block(0, self.size))

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

"""Allocates blocks of a shared segment, and frees them."""

from bisect import bisect_left, insort
from typing import NamedTuple

ALIGNMENT = 64
"""Blocks begin at multiples of this many bytes: a cache line, and more than any element type needs."""


class Block(NamedTuple):
    """A part of a segment, in bytes."""

    offset: int
    size: int


class Allocator:
    """Hands out blocks, each in the lowest gap that it fits into, so that few pages of memory are ever touched.

    Args:
        size: bytes there are in all.
    """

    def __init__(self, size: int) -> None:
        self.size = size // ALIGNMENT * ALIGNMENT
        self._gaps = [Block(0, self.size)]  # by offset; no two of them touch

    @property
    def free_bytes(self) -> int:
        """Bytes that are not in use; there may be no gap of that size."""
        return sum(gap.size for gap in self._gaps)

    def allocate(self, size: int) -> Block | None:
        """A block of at least `size` bytes; None when there is no gap for it."""
        size = aligned(max(size, 1))
        for index, gap in enumerate(self._gaps):
            if gap.size > size:
                self._gaps[index] = Block(gap.offset + size, gap.size - size)
                return Block(gap.offset, size)
            if gap.size == size:
                return self._gaps.pop(index)
        return None

    def free(self, block: Block) -> None:
        """Take back a block that `allocate` gave out, once."""
        index = bisect_left(self._gaps, block)
        start, end = block.offset, block.offset + block.size
        if index < len(self._gaps) and self._gaps[index].offset == end:
            end += self._gaps.pop(index).size
        if index and sum(self._gaps[index - 1]) == start:
            start = self._gaps.pop(index - 1).offset
        insort(self._gaps, Block(start, end - start))


def aligned(size: int) -> int:
    """The next multiple of the alignment."""
    return -(-size // ALIGNMENT) * ALIGNMENT

"""A few bytes that the engine's process and a worker share beside batches, to read and to write at any time."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

CONTROL_BYTES = 64
"""Bytes of it, the last ones of the memory shared with a worker."""


class WorkerControl:
    """Tells a worker that nobody waits for its batch any more, and the engine's process that the worker is alive.

    Args:
        memory: `CONTROL_BYTES` shared with the other process.
    """

    def __init__(self, memory: NDArray[np.uint8]) -> None:
        self._words: NDArray[Any] = memory.view(np.int64)

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for the batch that is computed."""
        return bool(self._words[0])

    @abandoned.setter
    def abandoned(self, value: bool) -> None:
        self._words[0] = value

    @property
    def beats(self) -> int:
        """Signs of life that the worker has given."""
        return int(self._words[1])

    def beat(self) -> None:
        """Give a sign of life."""
        self._words[1] += 1

"""Examples in the host's memory, sorted by class."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ExampleSet:
    """Images, packed texts or features of named classes.

    Attributes:
        names: of the K classes.
        counts: examples of each class [K] int64.
        examples: those of the first class first: images [N, C, H, W] or texts [N, L] uint8, features [N, F] float32.
    """

    names: tuple[str, ...]
    counts: NDArray[np.int64]
    examples: NDArray[Any]

    def select(self, names: Sequence[str]) -> "ExampleSet":
        """The classes `names`, in that order."""
        position = {name: index for index, name in enumerate(self.names)}
        chosen = np.array([position[name] for name in names], dtype=np.int64)
        starts = np.cumsum(self.counts) - self.counts
        rows = [np.arange(starts[index], starts[index] + self.counts[index]) for index in chosen]
        return ExampleSet(tuple(names), self.counts[chosen], self.examples[np.concatenate([np.arange(0), *rows])])

    def with_rotations(self) -> "ExampleSet":
        """These classes of images and, as further classes, each of them rotated by 90, 180 and 270 degrees."""
        names = list(self.names)
        images = [self.examples]
        for turns in (1, 2, 3):
            names += [f"{name} rotated by {90 * turns}" for name in self.names]
            images.append(np.rot90(self.examples, turns, axes=(2, 3)))
        return ExampleSet(tuple(names), np.tile(self.counts, 4), np.concatenate(images))

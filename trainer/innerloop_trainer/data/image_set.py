"""Decoded images in the host's memory, sorted by class."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ImageSet:
    """Images of named classes.

    Attributes:
        names: of the K classes.
        counts: images of each class [K] int64.
        images: [N, C, H, W] uint8, those of the first class first.
    """

    names: tuple[str, ...]
    counts: NDArray[np.int64]
    images: NDArray[np.uint8]

    def select(self, names: Sequence[str]) -> "ImageSet":
        """The classes `names`, in that order."""
        position = {name: index for index, name in enumerate(self.names)}
        chosen = np.array([position[name] for name in names], dtype=np.int64)
        starts = np.cumsum(self.counts) - self.counts
        rows = [np.arange(starts[index], starts[index] + self.counts[index]) for index in chosen]
        return ImageSet(tuple(names), self.counts[chosen], self.images[np.concatenate([np.arange(0), *rows])])

    def with_rotations(self) -> "ImageSet":
        """These classes and, as further classes, each of them rotated by 90, 180 and 270 degrees."""
        names = list(self.names)
        images = [self.images]
        for turns in (1, 2, 3):
            names += [f"{name} rotated by {90 * turns}" for name in self.names]
            images.append(np.rot90(self.images, turns, axes=(2, 3)))
        return ImageSet(tuple(names), np.tile(self.counts, 4), np.concatenate(images))

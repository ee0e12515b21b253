"""Examples in the host's memory or on its disk, sorted by class."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from innerloop_trainer.data.class_digests import ClassDigest
from innerloop_trainer.data.row_files import MappedRows

Examples = NDArray[Any] | MappedRows
"""Examples [N, ...] in memory or on disk."""

PART_BYTES = 4 * 2**20
"""Bytes of examples that are looked at together: few enough for the cache of a processor, and for any memory."""


@dataclass(frozen=True)
class ExampleSet:
    """Images, texts, recordings or features of named classes.

    Attributes:
        names: names of the K classes.
        counts: number of examples of each class [K] int64.
        examples: examples sorted by class: images [N, C, H, W] uint8, recordings [N, samples] or features [N, F]
            float32, or texts [N] as strings, each of which takes the memory of its own length. Those on disk stay there
            until they are drawn.
        digests: digests of the K classes, by which they are recognised whatever their names.
        speakers: number of the speaker of each example [N] int64, where episodes keep speakers apart; otherwise None.
        domains: name of the domain of each of the K classes, where each episode is of one; otherwise None.
    """

    names: tuple[str, ...]
    counts: NDArray[np.int64]
    examples: Examples
    digests: tuple[ClassDigest, ...]
    speakers: NDArray[np.int64] | None = None
    domains: tuple[str, ...] | None = None

    def select(self, names: Sequence[str]) -> "ExampleSet":
        """The classes `names`, in that order."""
        position = {name: index for index, name in enumerate(self.names)}
        chosen = np.array([position[name] for name in names], dtype=np.int64)
        starts = np.cumsum(self.counts) - self.counts
        rows = [np.arange(starts[index], starts[index] + self.counts[index]) for index in chosen]
        examples = np.concatenate([np.arange(0), *rows])
        return ExampleSet(
            tuple(names),
            self.counts[chosen],
            _rows(self.examples, examples),
            tuple(self.digests[index] for index in chosen),
            None if self.speakers is None else self.speakers[examples],
            None if self.domains is None else tuple(self.domains[index] for index in chosen),
        )

    def in_parts(self) -> Iterator[NDArray[Any]]:
        """The examples in order, a few MB at a time, so that what is computed of them never needs as much as all."""
        size = int(np.prod(self.examples.shape[1:], dtype=np.int64)) * self.examples.dtype.itemsize
        step = max(1, PART_BYTES // max(1, size))
        for start in range(0, len(self.examples), step):
            yield self.examples[start : start + step]

    def count(self, which: NDArray[np.bool_]) -> dict[str, int]:
        """The number of examples of each class among those marked in `which` [N]."""
        starts = np.cumsum(self.counts) - self.counts
        sizes = zip(self.names, starts, self.counts, strict=True)
        return {name: int(which[start : start + count].sum()) for name, start, count in sizes}

    def by_speakers(self, speakers: Collection[int]) -> "ExampleSet":
        """The examples by some of the speakers. Classes keep their digests, and those without such examples stay."""
        if self.speakers is None:
            raise ValueError("these examples have no speakers")
        kept = np.isin(self.speakers, list(speakers))
        counts = np.array([*self.count(kept).values()], dtype=np.int64)
        return replace(self, counts=counts, examples=_rows(self.examples, kept), speakers=self.speakers[kept])

    def joined(self, *others: "ExampleSet") -> "ExampleSet":
        """These classes and those of other sets, none of which may be in two of them."""
        sets = (self, *others)
        return ExampleSet(
            tuple(name for each in sets for name in each.names),
            np.concatenate([each.counts for each in sets]),
            _joined([each.examples for each in sets]),
            tuple(digest for each in sets for digest in each.digests),
            None if self.speakers is None else np.concatenate([each.speakers for each in sets]),
            None if self.domains is None else tuple(domain for each in sets for domain in each.domains or ()),
        )

    def first_channel(self) -> "ExampleSet":
        """The first channel of these images."""
        examples = self.examples
        first = examples.first_channel() if isinstance(examples, MappedRows) else examples[:, :1]
        return replace(self, examples=first)

    def with_rotations(self) -> "ExampleSet":
        """These classes of images and, as further classes, each of them rotated by 90, 180 and 270 degrees.

        A rotated domain is a domain of its own.
        """
        names, digests = list(self.names), list(self.digests)
        domains = None if self.domains is None else list(self.domains)
        upright = np.asarray(self.examples)
        images = [upright]
        for turns in (1, 2, 3):
            turned = f" rotated by {90 * turns}"
            names += [name + turned for name in self.names]
            digests += [digest.turned(turned) for digest in self.digests]
            if domains is not None:
                domains += [domain + turned for domain in domains[: len(self.names)]]
            images.append(np.rot90(upright, turns, axes=(2, 3)))
        return ExampleSet(
            tuple(names),
            np.tile(self.counts, 4),
            np.concatenate(images),
            tuple(digests),
            domains=None if domains is None else tuple(domains),
        )


def _rows(examples: Examples, which: NDArray[Any]) -> Examples:
    return examples.select(which) if isinstance(examples, MappedRows) else examples[which]


def _joined(parts: Sequence[Examples]) -> Examples:
    """Examples one after the other; what lies on disk stays there, if all of it does."""
    first, *others = parts
    mapped = [other for other in others if isinstance(other, MappedRows)]
    if isinstance(first, MappedRows) and len(mapped) == len(others):
        return first.joined(*mapped)
    return np.concatenate([np.asarray(part) for part in parts])

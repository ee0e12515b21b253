"""Digests by which a class is known again, whatever its name and wherever it lies.

A model is judged on classes that it was not trained on; what was trained on is known by these digests, which bundles
keep, and what a run goes on with must be what it began with.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEPT = 2
"""Examples by which a class is known. With two, adding or removing any one example changes nothing."""

KNOWN_BY_DIGITS, CONTENT_DIGITS = 8, 12
"""Hexadecimal digits of digests. With 8, one of 1,000 classes is taken for one of 1,000 others once in 1,000 times."""


@dataclass(frozen=True)
class ClassDigest:
    """Two digests of one class.

    Attributes:
        known_by: the smallest two of its examples' digests, without examples that other classes of the data have, too,
            which would make them all one; unless those are most of it. Two classes are taken for one if they share one
            of these, so that a class that has grown or shrunk is still known: always if by one example, three times in
            four if it has doubled.
        content: of all its examples, in any order. It changes with each of them.
    """

    known_by: tuple[str, ...]
    content: str

    def turned(self, how: str) -> "ClassDigest":
        """The digest of a class whose examples are those of this one, all changed in one way."""
        return ClassDigest(
            tuple(_changed(digest, how, KNOWN_BY_DIGITS) for digest in self.known_by),
            _changed(self.content, how, CONTENT_DIGITS),
        )


def digest_class(examples: Sequence[bytes], shared: Set[bytes] = frozenset()) -> ClassDigest:
    """The digests of one class.

    Sources of files give the content of each file, so that a class keeps its digests when it is renamed, decoded to
    another size or by another version of a library; others give what they made.

    Args:
        examples: SHA-256 of each, in any order.
        shared: those that other classes have, too, such as a picture that says "no image available".
    """
    content = hashlib.sha256(b"".join(sorted(examples))).hexdigest()
    every = set(examples)
    own = every - shared
    # A class of which most lies in others is one of them under another name.
    telling = own if 2 * len(own) >= len(every) else every
    known_by = tuple(example.hex()[:KNOWN_BY_DIGITS] for example in sorted(telling)[:KEPT])
    return ClassDigest(known_by, content[:CONTENT_DIGITS])


def digest_classes(counts: NDArray[np.int64], examples: Sequence[bytes]) -> tuple[ClassDigest, ...]:
    """The digests of K classes.

    Args:
        counts: examples of each class [K].
        examples: SHA-256 of each example, those of the first class first [N].
    """
    ends = np.cumsum(counts)
    classes = [examples[end - count : end] for count, end in zip(counts, ends, strict=True)]
    homes = Counter(example for each in classes for example in set(each))
    shared = {example for example, number in homes.items() if number > 1}
    return tuple(digest_class(each, shared) for each in classes)


def digest_arrays(counts: NDArray[np.int64], examples: NDArray[Any]) -> tuple[ClassDigest, ...]:
    """The digests of K classes whose examples [N, ...] were made rather than read from files."""
    return digest_classes(counts, [hashlib.sha256(example.tobytes()).digest() for example in examples])


def _changed(digest: str, how: str, digits: int) -> str:
    return hashlib.sha256((digest + how).encode()).hexdigest()[:digits]

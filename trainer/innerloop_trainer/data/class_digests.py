"""Digests by which a class is recognised, whatever its name and folder.

A model must be measured on classes that it was not trained on. Bundles keep digests of the classes that they were
trained on, so that these can be left out, and a run keeps digests so that it is only resumed on the same classes.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEPT = 2
"""Number of examples by which a class is recognised. With two, it still is after one example is added or removed."""

KNOWN_BY_DIGITS, CONTENT_DIGITS = 8, 12
"""Hexadecimal digits of digests. With 8, the chance that any of 1,000 classes is mistaken for any of 1,000 others is
about 1 in 1,000."""


@dataclass(frozen=True)
class ClassDigest:
    """Two digests of one class.

    Attributes:
        known_by: the two smallest digests of its examples. Examples that other classes of the data have too do not
            count, unless they are most of the class, since they would make these classes one. Two classes count as the
            same if they share one of these digests. A class that grew or shrank by one example is always recognised,
            one that doubled three times in four.
        content: digest of all examples, in any order; it changes if any example changes.
    """

    known_by: tuple[str, ...]
    content: str

    def turned(self, how: str) -> "ClassDigest":
        """The digest of a class made by changing all examples of this one in the same way, such as by rotation."""
        return ClassDigest(
            tuple(_changed(digest, how, KNOWN_BY_DIGITS) for digest in self.known_by),
            _changed(self.content, how, CONTENT_DIGITS),
        )


def digest_class(examples: Sequence[bytes], shared: Set[bytes] = frozenset()) -> ClassDigest:
    """The digests of one class.

    Sources of files take digests of the files' content. A class then keeps its digests when it is renamed, or when its
    images are decoded to another size or by another version of a library.

    Args:
        examples: SHA-256 of each example, in any order.
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
        counts: number of examples of each class [K].
        examples: SHA-256 of each example [N], sorted by class.
    """
    ends = np.cumsum(counts)
    classes = [examples[end - count : end] for count, end in zip(counts, ends, strict=True)]
    homes = Counter(example for each in classes for example in set(each))
    shared = {example for example, number in homes.items() if number > 1}
    return tuple(digest_class(each, shared) for each in classes)


def digest_arrays(counts: NDArray[np.int64], examples: NDArray[Any]) -> tuple[ClassDigest, ...]:
    """The digests of K classes whose examples [N, ...] were made rather than read from files."""
    return digest_classes(counts, example_digests(examples))


def example_digests(examples: NDArray[Any]) -> list[bytes]:
    """SHA-256 of each of the examples [N, ...]."""
    return [hashlib.sha256(example.tobytes()).digest() for example in examples]


def _changed(digest: str, how: str, digits: int) -> str:
    return hashlib.sha256((digest + how).encode()).hexdigest()[:digits]

"""Digests by which a class is known again, whatever its name and wherever it lies.

A model is judged on classes that it was not trained on; what was trained on is known by these digests, which bundles
keep, and what a run goes on with must be what it began with.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEX_DIGITS = 12
"""Of each digest. With 48 bits, 5,000 classes meet 5,000 others by chance once in ten million times."""


@dataclass(frozen=True)
class ClassDigest:
    """Two digests of one class.

    Attributes:
        identity: the smallest of its examples' digests. It stays when examples are added or removed, but for 1 in n
            times with n examples, so that a class that has grown is still known.
        content: of all its examples, in any order. It changes with each of them.
    """

    identity: str
    content: str


def digest_class(examples: Sequence[bytes]) -> ClassDigest:
    """The digests of one class.

    Sources of files give the content of each file, so that a class keeps its digests when it is renamed, decoded to
    another size or by another version of a library; others give what they made.

    Args:
        examples: SHA-256 of each, in any order.
    """
    content = hashlib.sha256(b"".join(sorted(examples))).hexdigest()
    identity = min(examples).hex() if examples else content
    return ClassDigest(identity[:HEX_DIGITS], content[:HEX_DIGITS])


def digest_classes(counts: NDArray[np.int64], examples: Sequence[bytes]) -> tuple[ClassDigest, ...]:
    """The digests of K classes.

    Args:
        counts: examples of each class [K].
        examples: SHA-256 of each example, those of the first class first [N].
    """
    ends = np.cumsum(counts)
    return tuple(digest_class(examples[end - count : end]) for count, end in zip(counts, ends, strict=True))


def digest_arrays(counts: NDArray[np.int64], examples: NDArray[Any]) -> tuple[ClassDigest, ...]:
    """The digests of K classes whose examples [N, ...] were made rather than read from files."""
    return digest_classes(counts, [hashlib.sha256(example.tobytes()).digest() for example in examples])

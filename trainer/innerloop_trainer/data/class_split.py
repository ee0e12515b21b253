"""Seeded order of classes, for splits that stay the same everywhere and for ever."""

import hashlib
from collections.abc import Iterable


def shuffled(names: Iterable[str], seed: int) -> list[str]:
    """`names` in an order that depends on nothing but the names and `seed`.

    Sorting by a digest rather than drawing from a random generator keeps a published split stable across platforms and
    library versions, and keeps the order of the other classes when one is added.
    """
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())

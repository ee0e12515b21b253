"""Seeded order of classes, for splits that stay the same everywhere and for ever."""

import hashlib
from collections.abc import Iterable, Mapping

from innerloop_trainer.data.options import fraction, number
from innerloop_trainer.data.source import DataError, SourceRequest

SPLIT_OPTIONS = ("val", "test", "seed")

Splits = Mapping[str, list[str]]
"""Class names of the splits train, validation and test."""


def shuffled(names: Iterable[str], seed: int) -> list[str]:
    """`names` in an order that depends on nothing but the names and `seed`.

    Sorting by a digest rather than drawing from a random generator keeps a published split stable across platforms and
    library versions, and keeps the order of the other classes when one is added.
    """
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())


def split_by_seed(request: SourceRequest, names: list[str]) -> tuple[Splits, str]:
    """Classes shuffled and divided as the options `val`, `test` and `seed` of a request say, and how that was done.

    Raises:
        DataError: no class is left to train on.
    """
    seed = number(request, "seed", default=0)
    validation = max(1, round(len(names) * fraction(request, "val", default=0.15)))
    test = max(1, round(len(names) * fraction(request, "test", default=0.2)))
    train = len(names) - validation - test
    if train < 1:
        raise DataError(
            f"{request.name}: {len(names)} classes leave none for training after {validation} for validation and "
            f"{test} for test; add classes or lower val and test"
        )
    order = shuffled(names, seed)
    splits = {
        "train": order[:train],
        "validation": order[train : train + validation],
        "test": order[train + validation :],
    }
    return splits, f"by class with seed {seed}"


def describe_split(splits: Splits, how: str) -> str:
    """How many classes each split has, and how they were divided, for descriptions of sources."""
    train, validation, test = (len(splits[part]) for part in ("train", "validation", "test"))
    return f"split {how}: {train} classes for training, {validation} for validation, {test} for test"

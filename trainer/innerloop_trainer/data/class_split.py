"""Divides classes into splits by a seed; the splits are the same on every machine and with every version."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from innerloop_trainer.data.options import FRACTION, one_of, option, whole_number
from innerloop_trainer.data.source import DataError


@dataclass(frozen=True)
class SplitOptions:
    """Options that divide classes into splits, for data that is not divided already."""

    val: float = option(0.15, FRACTION, "Fraction of the classes for validation.")
    test: float = option(0.2, FRACTION, "Fraction of the classes for test.")
    seed: int = option(0, whole_number(), "Another number divides the classes in another order.")
    order: str = option(
        "shuffled", one_of("shuffled", "name"), "By name, the first classes are for training and the last for test."
    )


Splits = Mapping[str, list[str]]
"""Class names of the splits train, validation and test."""


def shuffled(names: Iterable[str], seed: int) -> list[str]:
    """`names` in an order that depends on nothing but the names and `seed`.

    Sorting by a digest rather than drawing from a random generator keeps a published split stable across platforms and
    library versions, and keeps the order of the other classes when one is added.
    """
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())


def split_by_seed(options: SplitOptions, names: list[str]) -> tuple[Splits, str]:
    """Shuffle classes and divide them; returns the splits, and a description of how classes were divided.

    Args:
        options: fractions and seed.
        names: names of all classes.

    A few classes may leave a split empty; all of them together can still be drawn from.
    """
    validation = max(1, round(len(names) * options.val))
    test = max(1, round(len(names) * options.test))
    train = max(0, len(names) - validation - test)
    order = sorted(names) if options.order == "name" else shuffled(names, options.seed)
    splits = {
        "train": order[:train],
        "validation": order[train : train + validation],
        "test": order[train + validation :],
    }
    return splits, "by name" if options.order == "name" else f"by class with seed {options.seed}"


def split_domains(options: SplitOptions, domains: Mapping[str, str]) -> tuple[Splits, str]:
    """Shuffle domains and divide them, with all their classes; returns what `split_by_seed` does.

    Args:
        options: fractions of the domains, and seed.
        domains: domain of each class by the class's name.
    """
    of_domains, how = split_by_seed(options, sorted(set(domains.values())))
    splits = {
        split: [name for name, domain in domains.items() if domain in chosen] for split, chosen in of_domains.items()
    }
    counts = ", ".join(str(len(chosen)) for chosen in of_domains.values())
    return splits, f"{how.replace('by class', 'by domain')} (of {counts} domains)"


def hold_out(source: str, options: SplitOptions, splits: Splits) -> Splits:
    """Take classes for validation from those for training, if there is no validation split.

    Args:
        source: name of the source, for messages.
        options: fraction and seed.
        splits: the training and the test split.

    Raises:
        DataError: no class is left to train on.
    """
    # In the order of names, those for validation come last.
    by_name = options.order == "name"
    order = sorted(splits["train"], reverse=True) if by_name else shuffled(splits["train"], options.seed)
    validation = max(1, round(len(order) * options.val))
    if validation >= len(order):
        raise DataError(f"{source}: {len(order)} classes leave none for training after {validation} for validation")
    return {**splits, "train": order[validation:], "validation": order[:validation]}


def describe_split(splits: Splits, how: str) -> str:
    """Describe the number of classes of each split, and how they were divided."""
    train, validation, test = (len(splits[part]) for part in ("train", "validation", "test"))
    return f"split {how}: {train} classes for training, {validation} for validation, {test} for test"

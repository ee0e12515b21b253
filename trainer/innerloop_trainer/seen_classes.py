"""Classes that a model has seen, which say nothing of how it does on new ones.

A bundle keeps digests of the classes that it was trained on and of those that it was chosen by. Whatever the data is
called, and however it is split, they are known again and left out when the bundle is evaluated.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from innerloop_trainer.data import DataSource, TaskSampler

Split = Literal["train", "validation", "test"]

SEEN_BEFORE: Mapping[Split, Sequence[Split]] = {"train": (), "validation": ("train",), "test": ("train", "validation")}
"""Splits of training whose classes must not come back in a split."""


class SeenClassesError(ValueError):
    """Too few classes are left that a model has not seen; the message says what to do."""


def record_classes(source: DataSource, earlier: Mapping[str, str]) -> dict[str, str]:
    """What a bundle keeps of the classes that it was trained on and chosen by.

    Args:
        source: it was trained on.
        earlier: the same of the parameters that training started from.

    Returns:
        digests of classes, separated by blanks, by split; nothing for regression.
    """
    digests = {
        split: {*_known_by(sampler), *earlier.get(split, "").split()}
        for split, sampler in (("train", source.train), ("validation", source.validation))
    }
    return {split: " ".join(sorted(found)) for split, found in digests.items() if found}


def leave_out_seen(
    sampler: TaskSampler, split: Split, record: Mapping[str, str], ways: int
) -> tuple[TaskSampler, Sequence[str]]:
    """A split without the classes that a model has seen.

    Args:
        sampler: the split.
        split: its name.
        record: what the model's bundle keeps of the classes that it has seen.
        ways: classes per task that the split must still give.

    Returns:
        the split, and the names of the classes that were left out.

    Raises:
        SeenClassesError: too few are left.
    """
    seen = _find_seen(sampler, split, record)
    left = len(sampler.names) - len(seen)
    if seen and left < ways:
        raise SeenClassesError(
            f"of the {len(sampler.names)} classes of the {split} split, {len(seen)} were trained on or chosen by, and "
            f"{left} are too few for {ways} ways; split the data as it was split for training, or add classes"
        )
    return sampler.without(seen) if seen else sampler, seen


def describe_classes(sampler: TaskSampler) -> str:
    """How many classes a split has, and a digest of which; empty for regression."""
    if not sampler.digests:
        return ""
    which = hashlib.sha256(" ".join(sorted(_known_by(sampler))).encode()).hexdigest()
    return f"{len(sampler.digests)} classes, {which[:12]}"


def _find_seen(sampler: TaskSampler, split: Split, record: Mapping[str, str]) -> Sequence[str]:
    seen = {digest for earlier in SEEN_BEFORE[split] for digest in record.get(earlier, "").split()}
    if not seen:
        return []
    return [name for name, digest in sampler.digests.items() if not seen.isdisjoint(digest.known_by)]


def _known_by(sampler: TaskSampler) -> Iterator[str]:
    return (known for digest in sampler.digests.values() for known in digest.known_by)

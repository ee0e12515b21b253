"""Leaves out classes that a model has seen, since its accuracy on them does not show how it does on new ones.

A bundle keeps digests of the classes that it was trained and validated on. When the bundle is evaluated, these classes
are recognised and left out, whatever the names of the data and its classes, and however the data is split.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from innerloop_trainer.data import DataSource, TaskSampler

Split = Literal["train", "validation", "test", "all"]

SEEN_BEFORE: Mapping[Split, Sequence[Split]] = {
    "train": (),
    "validation": ("train",),
    "test": ("train", "validation"),
    "all": ("train", "validation"),
}
"""For each split, the splits of training whose classes are left out of it."""


class SeenClassesError(ValueError):
    """A model has seen too many classes of a split; the message says what to do."""


def record_classes(source: DataSource, earlier: Mapping[str, str]) -> dict[str, str]:
    """The digests that a bundle keeps of the classes that it was trained and validated on.

    Args:
        source: data that the bundle was trained on.
        earlier: such digests of the models that training started from, or was taught by.

    Returns:
        digests of classes, separated by blanks, by split; empty for regression.
    """
    digests = {
        split: {*known_digests(sampler), *earlier.get(split, "").split()}
        for split, sampler in (("train", source.train), ("validation", source.validation))
    }
    return {split: " ".join(sorted(found)) for split, found in digests.items() if found}


def joined_records(*records: Mapping[str, str]) -> dict[str, str]:
    """The classes of several records, such as those of the models that a run starts from or learns from.

    >>> joined_records({"train": "a b"}, {"train": "b c", "validation": "d"})
    {'train': 'a b c', 'validation': 'd'}
    """
    splits = dict.fromkeys(split for record in records for split in record)
    digests = {split: {each for record in records for each in record.get(split, "").split()} for split in splits}
    return {split: " ".join(sorted(found)) for split, found in digests.items()}


def leave_out_seen(
    sampler: TaskSampler, split: Split, record: Mapping[str, str], ways: int
) -> tuple[TaskSampler, Sequence[str]]:
    """A split without the classes that a model has seen.

    Args:
        sampler: the split.
        split: name of the split.
        record: digests of the classes that the model has seen, from its manifest.
        ways: classes per task that the split must still give.

    Returns:
        the split, and the names of the classes that were left out.

    Raises:
        SeenClassesError: too few classes are left.
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
    """The number of classes of a split, and a digest of them, as a text; empty for regression."""
    if not sampler.digests:
        return ""
    which = hashlib.sha256(" ".join(sorted(known_digests(sampler))).encode()).hexdigest()
    return f"{len(sampler.digests)} classes, {which[:12]}"


def _find_seen(sampler: TaskSampler, split: Split, record: Mapping[str, str]) -> Sequence[str]:
    seen = {digest for earlier in SEEN_BEFORE[split] for digest in record.get(earlier, "").split()}
    if not seen:
        return []
    return [name for name, digest in sampler.digests.items() if not seen.isdisjoint(digest.known_by)]


def known_digests(sampler: TaskSampler) -> Iterator[str]:
    """The digests by which the classes of a split are recognised; none for regression."""
    return (known for digest in sampler.digests.values() for known in digest.known_by)

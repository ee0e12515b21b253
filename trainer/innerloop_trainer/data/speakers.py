"""Finds the speakers of recordings, and keeps those of test classes apart from those of other classes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from innerloop_trainer.data.class_split import shuffled
from innerloop_trainer.data.example_set import ExampleSet
from innerloop_trainer.data.file_tree import FileTree
from innerloop_trainer.data.left_out import Broken, counted
from innerloop_trainer.data.options import Kind, one_of, option
from innerloop_trainer.data.source import DataError

LEAST = 2
"""Fewest speakers of a split: one for support sets, one for queries."""


def _read_share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise ValueError(text)
    return value


@dataclass(frozen=True)
class SpeakerOptions:
    """Options that keep speakers apart."""

    speakers: str = option(
        "none",
        one_of("none", "folder", "prefix"),
        "Who speaks in a file: its folder, in that of the class, or what its name begins with, up to the first _ (or "
        "-, if there is no _). Support set and queries of an episode are then by different speakers, and so are test "
        "classes and others.",
    )
    test_speakers: float = option(
        0.5,
        Kind("a number from 0 to less than 1", _read_share),
        "Fraction of the speakers, 2 at least, for test classes; 0 lets all classes have all speakers.",
    )


def find_speakers(tree: FileTree, files: Iterable[PurePosixPath], how: str) -> dict[PurePosixPath, str]:
    """The name of the speaker of each file.

    Args:
        tree: folder or archive that holds the files.
        files: paths of the files.
        how: "folder" or "prefix", as in `SpeakerOptions`.

    Raises:
        DataError: names of files tell no speaker.
    """
    found: dict[PurePosixPath, str] = {}
    unclear = Broken(f"audio: {tree.root}")
    for path in files:
        name = path.parent.name if how == "folder" else _prefix(path.stem)
        if not name:
            unclear.note(f"the name of {tree.shown(path)} begins with no speaker and _")
        found[path] = tree.shown(PurePosixPath(name))
    unclear.refuse("rename them, or choose another ?speakers=")
    return found


def _prefix(stem: str) -> str:
    """Beginning of a name, up to the first _ or, if there is none, the first -; empty if there is neither."""
    before, found, _ = stem.partition("_" if "_" in stem else "-")
    return before if found else ""


@dataclass(frozen=True)
class ApartSplits:
    """Splits whose test classes have speakers of their own.

    Attributes:
        splits: examples of the splits train, validation and test.
        described: what was done, for the description of the source.
        notices: sentences about what was left out.
    """

    splits: Mapping[str, ExampleSet]
    described: str
    notices: Sequence[str] = ()


def keep_apart(
    splits: Mapping[str, ExampleSet], speakers: Sequence[str], options: SpeakerOptions, seed: int
) -> ApartSplits:
    """Leave out the examples of test classes by speakers of the others, and the reverse.

    Speakers are shuffled with the seed and divided. If no speaker of a test class speaks in another one as it is,
    nothing is left out. Classes for validation have the speakers of those for training.

    Args:
        splits: examples of the splits train, validation and test, with speakers.
        speakers: names of the speakers, by their numbers.
        options: the fraction of speakers for test classes.
        seed: seed of the division.

    Raises:
        DataError: there are too few speakers, or a class has no example by a speaker of its split.
    """
    by = {split: {speakers[number] for number in _numbers(data)} for split, data in splits.items()}
    others = by["train"] | by["validation"]
    within = "support sets and queries by different speakers"
    if not options.test_speakers or not by["test"] & others:
        told = f"{len(speakers)} speakers" + ("" if by["test"] & others else ", other ones in test classes")
        return ApartSplits(splits, described=f"{told}; {within}")
    present = sorted(by["test"] | others)
    count = max(LEAST, round(len(present) * options.test_speakers))
    if len(present) - count < LEAST:
        raise DataError(
            f"audio: {counted(len(present), 'speaker')} can't be divided into {count} for test classes and at least "
            f"{LEAST} for others; add speakers, lower ?test_speakers=, or let all classes have all speakers with "
            f"?test_speakers=0"
        )
    chosen = shuffled(present, seed)[:count]
    test = {number for number, name in enumerate(speakers) if name in chosen}
    rest = set(range(len(speakers))) - test
    kept = {split: data.by_speakers(test if split == "test" else rest) for split, data in splits.items()}
    for split, data in kept.items():
        _reject_empty(split, data)
    lost = sum(len(data.examples) - len(kept[split].examples) for split, data in splits.items())
    return ApartSplits(
        kept,
        described=f"{len(present)} speakers, of which {', '.join(sorted(chosen)) if count < 9 else count} in test "
        f"classes and the others in other classes, with seed {seed}; {within}",
        notices=[f"{counted(lost, 'recording')} of test classes by speakers of others, or the reverse, left out"],
    )


def _numbers(data: ExampleSet) -> set[int]:
    """The numbers of the speakers of these examples."""
    return set[int]() if data.speakers is None else set(np.unique(data.speakers).tolist())


def _reject_empty(split: str, data: ExampleSet) -> None:
    empty = [name for name, count in zip(data.names, data.counts, strict=True) if not count]
    if empty:
        raise DataError(
            f"audio: {', '.join(map(repr, empty[:10]))} of the {split} split has no recording by a speaker of this "
            f"split; add some, choose another ?seed=, or let all classes have all speakers with ?test_speakers=0"
        )

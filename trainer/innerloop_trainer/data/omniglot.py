"""`omniglot:PATH?key=value&...`: 1,623 handwritten characters of 50 alphabets; `OmniglotOptions` lists the options.

Lake, Salakhutdinov and Tenenbaum, Human-level concept learning through probabilistic program induction, Science 2015.
PATH holds images_background and images_evaluation, as zip archives or as folders, laid out as the authors publish them:
images_*/ALPHABET/characterNN/NNNN_DD.png.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from innerloop_learner.spec import InputSpec
from innerloop_trainer.data.cache import cached
from innerloop_trainer.data.class_examples import source_of_classes
from innerloop_trainer.data.class_split import shuffled
from innerloop_trainer.data.decode import decode_classes, image_decoder
from innerloop_trainer.data.example_set import ExampleSet
from innerloop_trainer.data.file_tree import FileTree, open_tree
from innerloop_trainer.data.options import (
    FLAG,
    existing_path,
    one_of,
    option,
    read_options,
    whole_number,
    write_options,
)
from innerloop_trainer.data.source import DataError, DataSource, SourceLoader, SourceRequest, sources

SPLIT_SEED = 2015

EXAMPLE = "omniglot:~/data/omniglot (a folder with images_background.zip and images_evaluation.zip)"


class Split(NamedTuple):
    """The characters of each split."""

    train: list[str]
    validation: list[str]
    test: list[str]


@dataclass(frozen=True)
class OmniglotOptions:
    """Options of the Omniglot source."""

    split: str = option(
        "random",
        one_of("random", "alphabet"),
        "Test on characters drawn from all alphabets, or on alphabets that were never trained on.",
    )
    size: int = option(28, whole_number(1), "Height and width to resize to, in pixels; drawings have 105.")
    rotations: bool = option(True, FLAG, "Train on each character rotated by 90, 180 and 270 degrees as well.")
    domains: str = option(
        "none",
        one_of("none", "alphabet"),
        "Alphabet: the characters of each episode are of one alphabet; a rotated alphabet is one of its own.",
    )


class Omniglot(SourceLoader):
    """The Omniglot source."""

    summary = "1,623 handwritten characters of 50 alphabets, as zip archives or folders"
    example = "omniglot:~/data/omniglot?split=alphabet"
    options = OmniglotOptions

    def load(self, request: SourceRequest) -> DataSource:
        """As in `SourceLoader`."""
        options = read_options(request, OmniglotOptions)
        root = existing_path(request, EXAMPLE)
        background = _read(_part(root, "images_background"), options.size)
        evaluation = _read(_part(root, "images_evaluation"), options.size)
        divide = random_split if options.split == "random" else alphabet_split
        split = divide(background, evaluation)
        names = background.names + evaluation.names
        everything = ExampleSet(
            names,
            np.concatenate([background.counts, evaluation.counts]),
            np.concatenate([background.examples, evaluation.examples]),
            background.digests + evaluation.digests,
            domains=tuple(map(_alphabet, names)) if options.domains == "alphabet" else None,
        )
        train = everything.select(split.train)
        return source_of_classes(
            f"omniglot:{options.split}",
            _describe(options.split, split, rotations=options.rotations),
            _input_of(options.size),
            request.device,
            train=train.with_rotations() if options.rotations else train,
            validation=everything.select(split.validation),
            test=everything.select(split.test),
            options=write_options(options),
        )


def random_split(background: ExampleSet, evaluation: ExampleSet) -> Split:
    """All characters shuffled: 1,100, 100 and 423 of them (Finn et al. 2017), in proportion if some are missing."""
    characters = shuffled(background.names + evaluation.names, SPLIT_SEED)
    train = round(len(characters) * 1100 / 1623)
    validation = max(1, round(len(characters) * 100 / 1623))
    return Split(characters[:train], characters[train : train + validation], characters[train + validation :])


def alphabet_split(background: ExampleSet, evaluation: ExampleSet) -> Split:
    """Test on the evaluation alphabets (Lake et al. 2015), validate on a sixth of the background alphabets."""
    alphabets = shuffled({_alphabet(name) for name in background.names}, SPLIT_SEED)
    held_out = set(alphabets[: max(1, round(len(alphabets) / 6))])
    train = [name for name in background.names if _alphabet(name) not in held_out]
    validation = [name for name in background.names if _alphabet(name) in held_out]
    return Split(train, validation, list(evaluation.names))


def _describe(split_name: str, split: Split, *, rotations: bool) -> str:
    rotated = " and their rotations by 90, 180 and 270 degrees" if rotations else ""
    return (
        f"Omniglot, {split_name} split (fixed seed {SPLIT_SEED}): {len(split.train):,} training characters{rotated}, "
        f"{len(split.validation)} for validation, {len(split.test)} for test"
    )


def _alphabet(character: str) -> str:
    return character.rpartition("/")[0]


def _part(root: Path, name: str) -> FileTree:
    """Open one half of the data set; its folder is preferred to its archive."""
    for path in (root / name, root / f"{name}.zip"):
        if path.exists():
            return open_tree(path)
    raise DataError(f"omniglot: {root} has neither {name}.zip nor a folder {name}; download both parts, see {EXAMPLE}")


def _input_of(size: int) -> InputSpec:
    """Raw images show dark ink on white paper, as a scan does. Normalised, paper is 0, like padding, and ink is 1."""
    return InputSpec(shape=(1, size, size), dtype="uint8", mean=(1.0,), std=(-1.0,), scale=1 / 255)


def _read(tree: FileTree, size: int) -> ExampleSet:
    """All characters of one half of the data set, each drawing resized to a square of `size` pixels."""

    def decode() -> ExampleSet:
        characters = defaultdict[str, list[PurePosixPath]](list)
        for path in tree.files:
            if path.suffix == ".png" and len(path.parts) >= 3:
                characters["/".join(path.parts[-3:-1])].append(path)
        if not characters:
            raise DataError(
                f"omniglot: {tree.root} has no drawings; they lie at ALPHABET/characterNN/NNNN_DD.png in it"
            )
        return decode_classes(tree, characters, image_decoder((size, size), "L"))

    return cached("omniglot", {"files": tree.identity(), "size": (size, size)}, decode)


sources.register("omniglot")(Omniglot())

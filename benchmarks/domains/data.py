"""What is trained on and what is measured: classes in domains."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from topics import split_by_topic

from innerloop_learner import InputSpec
from innerloop_trainer.data import ClassExamples, DataSource, TaskSampler, load_source
from innerloop_trainer.encoders import load_encoded, read_encoder

ENCODER = "all-minilm-l6-v2"


class Folders(NamedTuple):
    """The folders that the data is read from.

    Attributes:
        omniglot: folder of Omniglot's archives.
        banking77: folder of BANKING77's tables; None if it is not there.
    """

    omniglot: Path
    banking77: Path | None


class Domains(NamedTuple):
    """Classes in domains.

    Attributes:
        train: classes to train on.
        test: other classes, of other domains, to measure.
        input: shape and normalisation of the examples of both.
    """

    train: ClassExamples
    test: ClassExamples
    input: InputSpec


Reader = Callable[[Folders, int], Domains]
"""Reads the data of a run, by its seed."""


def between(train: str, test: str) -> Reader:
    """Reads one source to train on and another, or the same, to measure; {omniglot} in their texts is the path."""

    def read(folders: Folders, seed: int) -> Domains:
        del seed
        source, other = (_source(text.format(omniglot=folders.omniglot)) for text in (train, test))
        return Domains(_of_classes(source.train), _of_classes(other.test), source.input)

    return read


def intents(folders: Folders, seed: int) -> Domains:
    """BANKING77's intents in topics, of which the seed chooses those to measure, as features of an encoder."""
    source = _encoded(f"texts:{folders.banking77}?label=category")
    return Domains(*split_by_topic(source, seed), source.input)


@cache
def _source(text: str) -> DataSource:
    return load_source(text)


@cache
def _encoded(text: str) -> DataSource:
    return load_encoded(text, torch.device("cpu"), read_encoder(ENCODER))


def _of_classes(split: TaskSampler) -> ClassExamples:
    if not isinstance(split, ClassExamples):
        raise TypeError("only classes have domains")
    return split

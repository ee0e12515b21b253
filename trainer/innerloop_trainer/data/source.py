"""What a data source gives the trainer: three disjoint splits that draw episodes."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

import torch

from innerloop_learner.encoders import FrozenEncoder
from innerloop_learner.registry import Registry
from innerloop_learner.spec import InputSpec
from innerloop_learner.tasks import Episodes
from innerloop_learner.traits import TaskKind
from innerloop_trainer.data.class_digests import ClassDigest


class DataError(ValueError):
    """Data that can't be used; the message names the file or class and says what to do."""


@dataclass(frozen=True)
class EpisodeShape:
    """Size of sampled episodes.

    Attributes:
        ways: classes per task; ignored by regression sources.
        shots: support examples per class (in all, for regression).
        queries: query examples per class (in all, for regression).
    """

    ways: int
    shots: int
    queries: int


class TaskSampler(ABC):
    """One split, resident on a device, that draws episodes by vectorised gathers.

    Attributes:
        names: of its classes; empty for regression.
        digests: by which its classes are known again, by name; empty for regression.
    """

    names: Sequence[str] = ()
    digests: Mapping[str, ClassDigest] = MappingProxyType({})

    def without(self, names: Collection[str]) -> "TaskSampler":
        """The split without some of its classes, in the order they have.

        Raises:
            DataError: no class is left.
        """
        if names:
            raise DataError(f"this split has no classes, so not {', '.join(names)} either")
        return self

    @abstractmethod
    def sample(self, shape: EpisodeShape, tasks: int, generator: torch.Generator) -> Episodes:
        """Draw `tasks` episodes; equal generators draw equal episodes. Inputs come normalised.

        Raises:
            DataError: the split has too few classes or examples for `shape`.
        """

    @abstractmethod
    def check(self, shape: EpisodeShape) -> None:
        """Raise the DataError that `sample` would raise."""


@dataclass(frozen=True)
class DataSource:
    """A data source, loaded.

    Attributes:
        name: the source as the user named it, without paths of this machine, for example "omniglot:random".
        description: for people and manifests: what it holds, classes per split, seed of the split.
        input: shape and normalisation of its inputs.
        task_kind: classification or regression.
        target_size: target values per example (zero for classification).
        train, validation, test: splits with no class in common.
        texts: whether inputs are texts, which only an encoder can read.
        encoder: whose features the inputs are, if they are any.
        options: every option of the source by name, as text, those that the user did not give included: with the data
            itself, they say how its classes were read and divided.
        notices: what a user should know of what was read, a sentence each, for example how many files were left out.
    """

    name: str
    description: str
    input: InputSpec
    task_kind: TaskKind
    target_size: int
    train: TaskSampler
    validation: TaskSampler
    test: TaskSampler
    texts: bool = False
    encoder: FrozenEncoder | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    notices: Sequence[str] = ()


@dataclass(frozen=True)
class SourceRequest:
    """What a source is asked for: `NAME:PATH?key=value&...`, parsed.

    What a source holds and how its classes are split follow from this text alone, never from a run's seed: a model
    trained under one seed and evaluated under another must not meet its training classes in the test split.

    Attributes:
        name: before the colon.
        path: after the colon; empty for embedded sources.
        options: after the question mark.
        device: where the data shall reside.
    """

    name: str
    path: str
    options: dict[str, str]
    device: torch.device


@dataclass(frozen=True)
class NoOptions:
    """The options of a source that has none."""


class SourceLoader(ABC):
    """Loads one kind of source; a new kind is a new file that registers one of these in `sources`.

    Attributes:
        summary: what the source holds, a line for people.
        example: what a user may write to name it.
        options: dataclass of the options that it takes, see `innerloop_trainer.data.options`.
    """

    summary: ClassVar[str] = ""
    example: ClassVar[str] = ""
    options: ClassVar[type[Any]] = NoOptions

    @abstractmethod
    def load(self, request: SourceRequest) -> DataSource:
        """Load the source.

        Raises:
            DataError: missing or unusable data, or options it does not know.
        """


sources: Registry[SourceLoader] = Registry("data source", "innerloop.sources")

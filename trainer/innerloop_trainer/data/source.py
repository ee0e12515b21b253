"""The interface of data sources: three disjoint splits that draw episodes."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import torch

from innerloop_learner.augmentations import Augment
from innerloop_learner.encoders import EncoderSpec, FrozenEncoder
from innerloop_learner.registry import Registry
from innerloop_learner.spec import InputSpec
from innerloop_learner.tasks import Episodes
from innerloop_learner.traits import TaskKind
from innerloop_trainer.data.class_digests import ClassDigest


class DataError(ValueError):
    """Data can't be used; the message names the file or class and says what to do."""


@dataclass(frozen=True)
class EpisodeShape:
    """Size of sampled episodes.

    Attributes:
        ways: classes per task; ignored by regression sources.
        shots: support examples per class (in all, for regression).
        queries: query examples per class (in all, for regression).
        wrong_labels: largest share of a class's support examples that are examples of others in truth. Each task draws
            how many they are, from none to this, the same number for all of its classes. None in regression.
    """

    ways: int
    shots: int
    queries: int
    wrong_labels: float = 0.0

    @property
    def most_wrong(self) -> int:
        """Most wrong labels of a class: the share rounded down, so that it is never exceeded.

        >>> EpisodeShape(ways=5, shots=3, queries=1, wrong_labels=0.5).most_wrong
        1
        """
        return int(self.wrong_labels * self.shots + 1e-9)  # 0.29 of 100 are 29, which the product falls short of


class TaskSampler(ABC):
    """One split, resident on a device, that draws episodes by vectorised gathers.

    Attributes:
        names: names of its classes; empty for regression.
        digests: digest of each class by name, by which the class is recognised; empty for regression.
        labelled: whether answers are what the data says, rather than which image a query is an augmentation of.
    """

    names: Sequence[str] = ()
    digests: Mapping[str, ClassDigest] = MappingProxyType({})
    labelled: bool = True

    def without(self, names: Collection[str]) -> "TaskSampler":
        """The split without some of its classes, in the order they have.

        Raises:
            DataError: no class is left.
        """
        if names:
            raise DataError(f"this split has no classes, so not {', '.join(names)} either")
        return self

    def joined(self, *others: "TaskSampler") -> "TaskSampler":
        """The classes of this split and of others as one split.

        Raises:
            DataError: the splits have no classes.
        """
        del others
        raise DataError("these splits have no classes to join; name one of them: train, validation or test")

    def without_labels(self, augment: Augment) -> "TaskSampler":
        """The images of this split, of which each is a class of its own; `augment` makes its further examples.

        Raises:
            DataError: the split does not consist of images.
        """
        del augment
        raise DataError("only images can be learned from without labels; leave --unlabelled out")

    def domains(self, shape: EpisodeShape) -> Sequence[str]:
        """Names of the domains that can give episodes of this shape, each of which is then of one domain.

        Empty where classes have no domains, and an episode may have any of them.
        """
        del shape
        return ()

    @property
    def on_device(self) -> bool:
        """Whether `sample` is work of the device alone, of which the host reads nothing.

        Then it can be recorded, and replayed with other random numbers.
        """
        return False

    @property
    def ways_anywhere(self) -> int:
        """Most classes that an episode can have, whatever domain it is of."""
        return len(self.names)

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
        description: description for people and manifests: content, classes per split, seed of the split.
        input: shape and normalisation of its inputs.
        task_kind: classification or regression.
        target_size: target values per example (zero for classification).
        train, validation, test: splits with no class in common.
        texts: whether inputs are texts, which only an encoder can read.
        rate: sampling rate of inputs that are recordings, in Hz, which only an encoder can read; zero for others.
        encoder: the encoder whose features the inputs are; None if inputs are not encoded.
        options: all options of the source by name, as text, defaults included. With the data itself, they determine how
            its classes were read and divided.
        notices: sentences for the user about what was read, for example how many files were left out.
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
    rate: int = 0
    encoder: FrozenEncoder | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    notices: Sequence[str] = ()


@dataclass(frozen=True)
class SourceRequest:
    """The parsed text that names a source: `NAME:PATH?key=value&...`.

    The content of a source and its splits follow from this text alone, never from a run's seed. Otherwise a model that
    was trained with one seed and is evaluated with another would meet its training classes in the test split.

    Attributes:
        name: name of the source, before the colon.
        path: path of the data, after the colon; empty for embedded sources.
        options: options by key, after the question mark.
        device: device to keep the data on.
        scratch: folder of temporary files to put examples into that need not fit in memory, which lasts longer than the
            source; None to keep them in memory and in the cache.
    """

    name: str
    path: str
    options: dict[str, str]
    device: torch.device
    scratch: Path | None = None


@dataclass(frozen=True)
class NoOptions:
    """The options of a source that has none."""


class SourceLoader(ABC):
    """Loads one kind of source; a new kind is a new file that registers one of these in `sources`.

    Attributes:
        summary: description of the source in one line.
        example: text that names the source, as an example for users.
        options: dataclass of the source's options (see `innerloop_trainer.data.options`).
    """

    summary: ClassVar[str] = ""
    example: ClassVar[str] = ""
    options: ClassVar[type[Any]] = NoOptions

    def options_for(self, encoder: EncoderSpec) -> Mapping[str, str]:
        """The options that bring inputs to the form an encoder takes; those that a user names go before them."""
        del encoder
        return {}

    @abstractmethod
    def load(self, request: SourceRequest) -> DataSource:
        """Load the source.

        Raises:
            DataError: the data is missing or can't be used, or the source does not take an option.
        """


sources: Registry[SourceLoader] = Registry("data source", "innerloop.sources")

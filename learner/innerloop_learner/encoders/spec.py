"""The description of an encoder as plain data, from which a bundle's encoder is opened again."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from innerloop_learner.settings import is_finite, with_settings
from innerloop_learner.spec import MOST_ELEMENTS

Form = Literal["texts", "images", "audio"]
Pooling = Literal["none", "mean", "first", "mean-max", "thirds"]

ENCODER, TOKENIZER = "encoder.onnx", "tokenizer.json"
"""Names of the files of a bundle that hold the encoder's graph and its tokenizer."""

MOST_TOKENS, MOST_RATE = 65_536, 1_000_000
"""Most tokens of a text, and most samples a second of a recording, that an encoder may read: bounds of manifests, far
beyond any use."""


@dataclass(frozen=True)
class EncoderOrigin:
    """Where an encoder comes from, for people; features do not depend on it.

    Attributes:
        name: name of the encoder, for example in the catalogue.
        source: where its weights come from, for example a package and its version.
        licence: SPDX identifier of the weights' licence; empty if it is not known.
        digest: SHA-256 of the encoder's graph.
    """

    name: str = ""
    source: str = ""
    licence: str = ""
    digest: str = ""


@dataclass(frozen=True)
class EncoderSpec:
    """A frozen encoder: how raw inputs become inputs of its graph, and how outputs of its graph become features.

    Attributes:
        input: kind of its inputs: texts, images with pixels of 0 to 255, or audio with samples of -1 to 1.
        features: number of features F of an example.
        output: name of the graph's output that is used.
        pooling: how several vectors of one example (tokens, windows of audio, or pixels of feature maps) become one:
            their "mean" (over real tokens only), the "first", their mean and behind it their maximum ("mean-max"), or
            the means of the first, the middle and the last third of a recording's windows ("thirds"); "none" where
            the graph's output is taken as it is.
        normalise: whether features are divided by their length.
        max_tokens: number of tokens after which a text is cut; zero for images and audio.
        shape: shape of one input: (channels, height, width) of an image, (samples,) of audio; empty for texts.
        rate: sampling rate of audio, in Hz; zero for texts and images.
        mean, std: mean and standard deviation of pixels after scaling, one value or one per channel.
        scale: factor that takes pixels of 0 to 255 to the range of `mean` and `std`.
        flip: whether the features of an image are averaged with those of its mirror image, for twice the time.
        feature_shape: shape of an example's features where they are maps (C, H, W); empty for a vector of F features.
        origin: where the encoder comes from; None if that was not recorded.
    """

    input: Form
    features: int
    output: str
    pooling: Pooling = "none"
    normalise: bool = False
    max_tokens: int = 0
    shape: tuple[int, ...] = ()
    rate: int = 0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float = 1 / 255
    flip: bool = False
    feature_shape: tuple[int, ...] = ()
    origin: EncoderOrigin | None = None

    def __post_init__(self) -> None:
        if self.input not in get_args(Form) or self.pooling not in get_args(Pooling):
            raise ValueError(f"an encoder of {self.input!r} with pooling {self.pooling!r} is not known")
        if not 1 <= self.features <= MOST_ELEMENTS or not (self.input == "texts") <= self.max_tokens <= MOST_TOKENS:
            raise ValueError("an encoder gives features, and reads tokens of texts")
        described, sizes = _SHAPES[self.input]
        if len(self.shape) != sizes or any(type(size) is not int or size < 1 for size in self.shape):
            raise ValueError(f"an encoder of {self.input} has a shape {described}, not {self.shape}")
        if math.prod(self.shape) > MOST_ELEMENTS:
            raise ValueError(f"an input of an encoder has at most {MOST_ELEMENTS:,} elements")
        if not all(is_finite(value) for value in (*self.mean, *self.std, self.scale)):
            raise ValueError("mean, std and scale are finite numbers")
        if not (self.input == "audio") <= self.rate <= MOST_RATE:
            raise ValueError(f"an encoder of audio has a sampling rate in Hz, not {self.rate}; at most {MOST_RATE:,}")
        channels = self.shape[0] if self.input == "images" else 1
        if any(len(values) not in (1, channels) for values in (self.mean, self.std)) or 0 in self.std:
            raise ValueError("mean and std hold one value or one per channel, and std is never zero")
        if self.feature_shape and math.prod(self.feature_shape) != self.features:
            raise ValueError(f"features of shape {self.feature_shape} are not {self.features} features")

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the features of one example: what a learner behind the encoder takes."""
        return self.feature_shape or (self.features,)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "EncoderSpec":
        """Read a spec from the plain data that `dataclasses.asdict` made of it.

        Raises:
            TypeError, KeyError, ValueError: the data does not describe an encoder.
        """
        tuples = {name: tuple(data[name]) for name in ("shape", "mean", "std")}
        tuples["feature_shape"] = tuple(data.get("feature_shape", ()))
        written = data.get("origin")
        origin = None if written is None else with_settings("origin", EncoderOrigin, written)
        return with_settings("encoder", cls, {**data, **tuples, "origin": origin})


_SHAPES: Mapping[str, tuple[str, int]] = {
    "texts": ("()", 0),
    "images": ("(channels, height, width)", 3),
    "audio": ("(samples,)", 1),
}
"""The shape of one input of each kind, in words, and its number of dimensions."""


@dataclass(frozen=True)
class EncoderOptions:
    """Options of an encoder that a user may give; those that are None are found by trying the encoder.

    Attributes:
        output: name of the output to use; None for the first.
        pooling, normalise, max_tokens, mean, std, scale, flip, rate: as in `EncoderSpec`.
        shape: shape of one input, for graphs that take images of any size or audio of any length.
    """

    output: str | None = None
    pooling: Pooling | None = None
    normalise: bool | None = None
    max_tokens: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    scale: float | None = None
    flip: bool | None = None
    rate: int | None = None
    shape: tuple[int, ...] | None = None

"""The description of an encoder as plain data, from which a bundle's encoder is opened again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from innerloop_learner.settings import with_settings

Form = Literal["texts", "images"]
Pooling = Literal["none", "mean", "first"]

ENCODER, TOKENIZER = "encoder.onnx", "tokenizer.json"
"""Names of the files of a bundle that hold the encoder's graph and its tokenizer."""


@dataclass(frozen=True)
class EncoderSpec:
    """A frozen encoder: how raw inputs become inputs of its graph, and how outputs of its graph become features.

    Attributes:
        input: kind of its inputs: texts, or images with pixels of 0 to 255.
        features: number of features F of an example.
        output: name of the graph's output that is used.
        pooling: how several vectors of one example (tokens, or pixels of feature maps) become one: their "mean" (over
            real tokens only), or the "first"; "none" where the graph gives one vector.
        normalise: whether features are divided by their length.
        max_tokens: number of tokens after which a text is cut; zero for images.
        shape: shape of an image (channels, height, width); empty for texts.
        mean, std: mean and standard deviation of pixels after scaling, one value or one per channel.
        scale: factor that takes pixels of 0 to 255 to the range of `mean` and `std`.
    """

    input: Form
    features: int
    output: str
    pooling: Pooling = "none"
    normalise: bool = False
    max_tokens: int = 0
    shape: tuple[int, ...] = ()
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float = 1 / 255

    def __post_init__(self) -> None:
        if self.input not in get_args(Form) or self.pooling not in get_args(Pooling):
            raise ValueError(f"an encoder of {self.input!r} with pooling {self.pooling!r} is not known")
        if self.features < 1 or self.max_tokens < (self.input == "texts"):
            raise ValueError("an encoder gives features, and reads tokens of texts")
        if (len(self.shape) == 3) != (self.input == "images") or any(size < 1 for size in self.shape):
            raise ValueError(f"an encoder of images has a shape (channels, height, width), not {self.shape}")
        channels = self.shape[0] if self.shape else 1
        if any(len(values) not in (1, channels) for values in (self.mean, self.std)) or 0 in self.std:
            raise ValueError("mean and std hold one value or one per channel, and std is never zero")

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "EncoderSpec":
        """Read a spec from the plain data that `dataclasses.asdict` made of it.

        Raises:
            TypeError, KeyError, ValueError: the data does not describe an encoder.
        """
        tuples = {name: tuple(data[name]) for name in ("shape", "mean", "std")}
        return with_settings("encoder", cls, {**data, **tuples})


@dataclass(frozen=True)
class EncoderOptions:
    """Options of an encoder that a user may give; those that are None are found by trying the encoder.

    Attributes:
        output: name of the output to use; None for the first.
        pooling, normalise, max_tokens, mean, std, scale: as in `EncoderSpec`.
        shape: shape of the images in the data, for graphs that take images of any size.
    """

    output: str | None = None
    pooling: Pooling | None = None
    normalise: bool | None = None
    max_tokens: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    scale: float | None = None
    shape: tuple[int, ...] | None = None

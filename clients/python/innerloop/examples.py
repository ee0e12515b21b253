"""Examples that are read and ready to travel, and what each is called in front of the caller."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from innerloop.errors import InvalidArgumentError
from innerloop.tensors import Array, encode_tensor, wire_bytes
from innerloop.v1 import tensor_pb2 as pb

_COLOUR_CHANNELS = (1, 3)
_FRAME_BYTES = 6
"""Bytes that the protocol puts in front of each file or text: a tag, and a length of at most 5 bytes."""
_WAVEFORM_FRAME_BYTES = 3 * _FRAME_BYTES
"""The same of a waveform, whose samples and rate have frames of their own."""

Form = Literal["tensor", "images", "texts", "audio_files", "waveforms"]
"""How examples travel, by the names of the fields of the wire contract."""


@dataclass(frozen=True)
class Names:
    """Names of examples in messages: the paths of their files, or their positions, counted from 0.

    Attributes:
        role: "support example" or "query".
        files: path of the file by position, for examples that are files.
        labels: labels by position, where there are some.
        start: position of the first example, where others were sent before it.

    Example:
        >>> names = Names("support example", {0: "cat.png"}, ["cat", "dog"])
        >>> names[0], names[1]
        ("'cat.png'", "support example 1 (label 'dog')")
    """

    role: str
    files: Mapping[int, str] = field(default_factory=dict)
    labels: Sequence[str] = ()
    start: int = 0

    def __getitem__(self, position: int) -> str:
        place = self.start + position
        if place in self.files:
            return repr(self.files[place])
        label = f" (label {self.labels[place]!r})" if place < len(self.labels) else ""
        return f"{self.role} {place}{label}"


@dataclass(frozen=True)
class Examples:
    """N examples.

    Attributes:
        values: an array [N, *shape] (tensor), or a list: the contents of N files of images or of sound, N texts, or
            the samples of N waveforms, float32 little-endian.
        names: what they are called.
        form: how they travel.
        rate: samples a second of waveforms.
    """

    values: Array | list[bytes] | list[str]
    names: Names
    form: Form = "tensor"
    rate: int = 0

    def __len__(self) -> int:
        return len(self.values)

    def part(self, start: int, stop: int) -> "Examples":
        """The examples from `start` to before `stop`, under the same names."""
        names = replace(self.names, start=self.names.start + start)
        return replace(self, values=self.values[start:stop], names=names)

    @property
    def need_shape(self) -> bool:
        """Whether the model's input shape decides how they travel.

        Vectors [N, D] and images with channels first [N, C, H, W] are in wire form already; asking the server about
        every model would cost a round trip for nothing.
        """
        values = self.values
        if isinstance(values, list):
            return False
        return not (values.ndim == 2 or (values.ndim == 4 and values.shape[1] in _COLOUR_CHANNELS))

    def arranged(self, shape: tuple[int, ...]) -> "Examples":
        """Arrays as a model of input `shape` takes them, where the way is clear; otherwise the server shall judge.

        Channels move from last [N, H, W, C] to first, or appear: [N, H, W] becomes [N, 1, H, W] and [N] becomes
        [N, 1].
        """
        return self if isinstance(self.values, list) else replace(self, values=_arrange(self.values, shape))

    @property
    def sizes(self) -> list[int]:
        """Bytes that each takes in a request, at most."""
        if isinstance(self.values, list):
            frame = _WAVEFORM_FRAME_BYTES if self.form == "waveforms" else _FRAME_BYTES
            return [len(value.encode() if isinstance(value, str) else value) + frame for value in self.values]
        return [wire_bytes(self.values) // len(self.values)] * len(self.values)

    def encoded(self) -> "EncodedExamples":
        """Ready to be sent.

        Raises:
            InvalidArgumentError: their element type has no place on the wire.
        """
        return EncodedExamples(self.to_message(), self.names)

    def to_message(self) -> pb.Inputs:
        """The wire form.

        Raises:
            InvalidArgumentError: their element type has no place on the wire.
        """
        values: Any = self.values
        match self.form:
            case "tensor":
                return pb.Inputs(tensor=encode_tensor(values))
            case "images":
                return pb.Inputs(images=pb.EncodedImages(files=values))
            case "texts":
                return pb.Inputs(texts=pb.Texts(values=values))
            case "audio_files":
                return pb.Inputs(audio_files=pb.AudioFiles(files=values))
            case "waveforms":
                recordings = (pb.Waveform(samples=samples, sample_rate=self.rate) for samples in values)
                return pb.Inputs(waveforms=pb.Waveforms(values=recordings))


class EncodedExamples(NamedTuple):
    """Examples in their wire form.

    Attributes:
        message: what is sent.
        names: what they are called.
    """

    message: pb.Inputs
    names: Names


def _arrange(values: Array, shape: tuple[int, ...]) -> Array:
    example = values.shape[1:]
    if example == shape:
        return values
    if len(shape) == 3 and len(example) == 3 and example[2] == shape[0]:
        return values.transpose(0, 3, 1, 2)
    if len(shape) == len(example) + 1 and shape[0] == 1:
        return np.expand_dims(values, 1)
    return values


def refuse_not_finite(values: Array, names: Names) -> None:
    """Refuse numbers that are none.

    Raises:
        InvalidArgumentError: an example holds NaN, infinity, or what float32 has no room for; it is named.
    """
    if values.dtype.kind != "f":
        return
    with np.errstate(over="ignore"):
        finite = np.isfinite(values.astype(np.float32, copy=False))
    if not finite.all():
        position = int(np.flatnonzero(~finite.reshape(len(values), -1).all(axis=1))[0])
        raise InvalidArgumentError(
            f"{names[position]} holds NaN, infinity, or a number too large for float32; leave it out or fill in"
        )

"""Everything that callers hold as inputs, turned into what a request carries.

Arrays travel as tensors, images and files as encoded images, which the server decodes and resizes. Strings are texts to
a model that takes texts, and to others the paths of image files.
"""

from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeGuard

import numpy as np

from innerloop.errors import InvalidArgumentError
from innerloop.tensors import Array, encode_tensor
from innerloop.v1 import tensor_pb2 as pb

_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16B")
_COLOUR_CHANNELS = (1, 3)
_KINDS_OF_OBJECTS = "OUS"
_STRINGS_ARE_PATHS = "strings are taken for paths of image files, since this model takes no texts"


class Image(Protocol):
    """A PIL image, as far as we need one."""

    @property
    def mode(self) -> str:
        """How its pixels are to be read."""

    def convert(self, mode: str) -> Any:
        """Copy in another mode."""

    def getexif(self) -> Any:
        """What the camera noted, which way up among it."""

    def save(self, fp: BytesIO, format: str, **params: Any) -> None:  # noqa: A002 - PIL's name
        """Write to an open file."""


Inputs: TypeAlias = Array | Iterable[Array | Image | str | Path | bytes | float | Sequence[float]]
"""An array [N, *shape], or N of: arrays, PIL images, paths of image files, encoded image files, texts, numbers."""

Examples: TypeAlias = Array | list[bytes]
"""Inputs as they travel: an array [N, *shape], or N encoded images."""


def listed(inputs: Inputs) -> Array | list[Any]:
    """Inputs that can be looked at more than once: an array of numbers, or a list.

    Raises:
        InvalidArgumentError: a single text or image, or no inputs.
    """
    if _is_image(inputs):
        raise InvalidArgumentError("inputs are several examples; put a single one into a list")
    items: Any = np.asarray(inputs) if hasattr(inputs, "__array__") else list(inputs)
    if (not isinstance(items, list) and items.ndim == 0) or len(items) == 0:
        raise InvalidArgumentError("there are no inputs, or a single one that is not in a list")
    return list(items) if isinstance(items, np.ndarray) and items.dtype.kind in _KINDS_OF_OBJECTS else items


def are_strings(items: Array | list[Any]) -> TypeGuard[list[str]]:
    """Whether all inputs are strings: texts or paths, as only the model can say."""
    return isinstance(items, list) and all(isinstance(item, str) for item in items)


def encode_texts(texts: Sequence[str]) -> pb.Inputs:
    """The message for texts."""
    return pb.Inputs(texts=pb.Texts(values=texts))


def read_inputs(inputs: Inputs) -> Examples:
    """Read files, encode images, stack arrays; an array is taken as it is, a string as the path of an image file.

    Raises:
        InvalidArgumentError: not one of the forms above, or a mixture of arrays and images.
    """
    items = listed(inputs)
    if isinstance(items, np.ndarray):
        return items
    encoded = [_is_image(item) for item in items]
    if all(encoded):
        return [_encode(item, index) for index, item in enumerate(items)]
    if any(encoded):
        raise InvalidArgumentError("inputs are a mixture of arrays and images; send all as one or the other")
    return _stack(items)


def needs_shape(examples: Examples) -> TypeGuard[Array]:
    """Whether the model's input shape decides how `examples` travel.

    Vectors [N, D] and images with channels first [N, C, H, W] are in wire form already; asking the server about every
    model would cost a round trip for nothing.
    """
    if isinstance(examples, list):
        return False
    return not (examples.ndim == 2 or (examples.ndim == 4 and examples.shape[1] in _COLOUR_CHANNELS))


def arrange(examples: Array, shape: tuple[int, ...]) -> Array:
    """`examples` as a model of input `shape` takes them, where the way is clear; otherwise the server shall judge.

    Channels move from last [N, H, W, C] to first, or appear: [N, H, W] becomes [N, 1, H, W] and [N] becomes [N, 1].
    """
    example = examples.shape[1:]
    if example == shape:
        return examples
    if len(shape) == 3 and len(example) == 3 and example[2] == shape[0]:
        return examples.transpose(0, 3, 1, 2)
    if len(shape) == len(example) + 1 and shape[0] == 1:
        return np.expand_dims(examples, 1)
    return examples


def encode_inputs(examples: Examples) -> pb.Inputs:
    """The message for examples that are read and arranged.

    Raises:
        InvalidArgumentError: an element type that has no place on the wire.
    """
    if isinstance(examples, list):
        return pb.Inputs(images=pb.EncodedImages(files=examples))
    return pb.Inputs(tensor=encode_tensor(examples))


def _is_image(item: Any) -> bool:
    """Whether `item` stands for one image, as a path, the bytes of a file, or a PIL image."""
    return isinstance(item, str | Path | bytes) or (hasattr(item, "save") and hasattr(item, "convert"))


def _encode(item: Any, index: int) -> bytes:
    """One image as the bytes of a file."""
    if isinstance(item, bytes):
        return item
    if isinstance(item, str | Path):
        try:
            return Path(item).read_bytes()
        except OSError as error:
            hint = (
                "; strings are taken for paths of image files, since this model takes no texts"
                if isinstance(item, str)
                else ""
            )
            raise InvalidArgumentError(f"inputs[{index}]: can't read {str(item)!r}: {error.strerror}{hint}") from error
    try:
        return _as_png(item)
    except ValueError as error:
        raise InvalidArgumentError(f"inputs[{index}]: {error}") from error


def _as_png(image: Image) -> bytes:
    """An image as a PNG that the server reads as it would read the file that the image came from.

    Raises:
        ValueError: its mode has no equivalent.
    """
    if image.mode == "F":
        raise ValueError("has floating-point pixels, which have no natural range; convert it to 8 bits")
    exif = image.getexif()
    if image.mode not in _PNG_MODES:
        image = image.convert("I;16" if image.mode == "I" else "RGB")
    buffer = BytesIO()
    image.save(buffer, format="PNG", compress_level=1, exif=exif)
    return buffer.getvalue()


def _stack(items: Iterable[Any]) -> Array:
    try:
        return np.stack([np.asarray(item) for item in items])
    except ValueError as error:
        shapes = sorted({np.shape(item) for item in items if hasattr(item, "shape")})
        hint = f" ({', '.join(map(str, shapes))}); send images as files and the server resizes them" if shapes else ""
        raise InvalidArgumentError(f"inputs differ in shape{hint}") from error

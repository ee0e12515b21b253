"""Everything that callers hold as inputs, read into examples that can travel.

Arrays travel as tensors, PIL images as encoded images. What files are, only the model can say: recordings to a model
that takes audio, images to others; the server decodes them. Strings are texts to a model that takes texts, and to
others the paths of files. Arrays of samples, for which the caller names a rate, are read by `recordings`.
"""

import os
from collections.abc import Iterable, Mapping, Sequence, Set
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol, TypeAlias, TypeGuard

import numpy as np

from innerloop.checks import check_unicode, listing, nothing, refuse_masked, refuse_nothing
from innerloop.errors import InvalidArgumentError
from innerloop.examples import Examples, Names, refuse_not_finite
from innerloop.guard import guarded, said_by
from innerloop.tensors import Array

_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16B")
_KINDS_OF_OBJECTS = "OUS"
_STRINGS_ARE_PATHS = "; strings are taken for paths of files, since this model takes no texts"


class Image(Protocol):
    """A PIL image, as far as we need one."""

    @property
    def mode(self) -> str:
        """How its pixels are to be read."""

    def convert(self, mode: str) -> Any:
        """Copy in another mode."""

    def getexif(self) -> Any:
        """The EXIF data of the camera, which tell how the image is turned."""

    def save(self, fp: BytesIO, format: str, **params: Any) -> None:  # noqa: A002 - PIL's name
        """Write to an open file."""


File: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO
"""A file of an image or of sound: its path, its content, or the file opened in binary mode."""

Inputs: TypeAlias = Array | Iterable[Array | Image | File | float | Sequence[float]]
"""An array [N, *shape], or N of: arrays, PIL images, files, texts, numbers."""


def list_inputs(inputs: Inputs, role: str) -> Array | list[Any]:
    """Inputs that can be looked at more than once: an array of numbers, or a list of anything that isn't nothing.

    Args:
        inputs: as the caller gave them.
        role: "support example" or "query".

    Raises:
        InvalidArgumentError: a single text or file, no inputs, or one of them is None, NaN, masked or an empty text.
    """
    with guarded("inputs"):
        if _is_image(inputs):
            raise InvalidArgumentError("inputs are several examples; put a single one into a list")
        if isinstance(inputs, Set | Mapping):
            raise InvalidArgumentError(f"inputs have an order, which a {type(inputs).__name__} has not; give a list")
        refuse_masked(inputs, "an input")
        items: Any = np.asarray(inputs) if hasattr(inputs, "__array__") else list(inputs)
        if (not isinstance(items, list) and items.ndim == 0) or len(items) == 0:
            raise InvalidArgumentError("there are no inputs, or a single one that is not in a list")
        if isinstance(items, np.ndarray) and items.dtype.kind not in _KINDS_OF_OBJECTS:
            return items
        listed = list(items)
        refuse_nothing(listed, role)
    return listed


def are_files(items: Array | list[Any]) -> TypeGuard[list[Any]]:
    """Whether all inputs are files or strings: images, recordings or texts, as only the model can say."""
    with guarded("inputs"):
        return isinstance(items, list) and all(_is_file(item) for item in items)


def texts_to_examples(items: list[Any], names: Names) -> Examples:
    """Strings as texts.

    Raises:
        InvalidArgumentError: one of them is a file, or not valid Unicode.
    """
    for position, text in enumerate(items):
        if not isinstance(text, str):
            raise InvalidArgumentError(f"{names[position]} is a file, and this model takes texts; send strings")
        check_unicode(text, names[position])
    return Examples(list(items), names, "texts")


def read_inputs(items: Array | list[Any], names: Names, files: Literal["images", "audio_files"] = "images") -> Examples:
    """Read files, encode images, stack arrays; an array is taken as it is, a string as the path of a file.

    Args:
        items: what `list_inputs` gave.
        names: what the examples are called; those that are files get the names of these.
        files: what files hold.

    Raises:
        InvalidArgumentError: not one of the forms above, a mixture of arrays and images, or numbers that are none.
            Files that can't be read are named all at once.

    Example:
        >>> read_inputs([[1, 2], [3, 4], [5, 6]], Names("query")).values.shape
        (3, 2)
        >>> read_inputs([bytearray(b"one file"), BytesIO(b"another")], Names("query")).values
        [b'one file', b'another']
        >>> read_inputs(["absent.png", "lost.png"], Names("query"))
        Traceback (most recent call last):
        innerloop.errors.InvalidArgumentError: can't read 'absent.png': No such file or directory; can't read ...
    """
    if isinstance(items, list):
        with guarded("inputs"):
            are_images = [_is_image(item) for item in items]
        if all(are_images):
            return _read_files(items, names, files)
        if any(are_images):
            raise InvalidArgumentError("inputs are a mixture of arrays and images; send all as one or the other")
        items = _stack(items, names)
    refuse_not_finite(items, names)
    return Examples(items, names)


def _is_image(item: Any) -> bool:
    """Whether `item` stands for one example, as a file or a PIL image."""
    return _is_file(item) or (hasattr(item, "save") and hasattr(item, "convert"))


def _is_file(item: Any) -> bool:
    return isinstance(item, str | os.PathLike | bytes | bytearray | memoryview) or hasattr(item, "read")


def _read_files(items: Sequence[Any], names: Names, form: Literal["images", "audio_files"]) -> Examples:
    """Files and images, as the contents of files."""
    with guarded("inputs"):
        files = {place: path for place, item in enumerate(items) if (path := _path_of(item))}
    names = Names(names.role, files, names.labels)
    contents: list[bytes] = []
    problems: list[str] = []
    for place, item in enumerate(items):
        try:
            contents.append(_encode(item))
        except Exception as failure:  # PIL, file systems and the caller's own files raise almost anything
            with guarded(names[place]):
                problems.append(f"can't read {names[place]}: {_reason(failure, item)}")
    if problems:
        hint = _STRINGS_ARE_PATHS if all(isinstance(item, str) for item in items) else ""
        raise InvalidArgumentError(listing(problems) + hint)
    return Examples(contents, names, form)


def _path_of(item: Any) -> str:
    """The path of a file, an open file, or a PIL image that was read from one; empty where there is none."""
    if isinstance(item, str | os.PathLike):
        return os.fsdecode(item)
    path = getattr(item, "filename", None) or getattr(item, "name", None)
    return os.fsdecode(path) if isinstance(path, str | os.PathLike) else ""


def _encode(item: Any) -> bytes:
    """One image as the content of a file."""
    if isinstance(item, bytes | bytearray | memoryview):
        content = bytes(item)
    elif isinstance(item, str | os.PathLike):
        content = Path(os.fsdecode(item)).read_bytes()
    elif hasattr(item, "read"):
        content = _read_open_file(item)
    else:
        content = _as_png(item)
    if not content:
        raise ValueError("it is empty")
    return content


def _read_open_file(file: Any) -> bytes:
    """All of an open file, from its beginning: whoever has just written it stands at its end."""
    if hasattr(file, "seekable") and file.seekable():
        file.seek(0)
    content = file.read()
    if not isinstance(content, bytes | bytearray | memoryview):
        raise TypeError('it was opened as a text; open it with mode "rb"')
    return bytes(content)


def _reason(failure: Exception, item: Any) -> str:
    if isinstance(failure, OSError) and failure.strerror:
        return failure.strerror
    said = said_by(failure)
    if getattr(item, "closed", False):
        return f"the file is closed; send it while it is open ({said})"
    # PIL reads the pixels of a file when they are first needed.
    if hasattr(item, "convert") and ("closed image" in said or getattr(item, "fp", said) is None):
        return f"the image was closed before it was loaded; call its load() first, or send the file's path ({said})"
    return said


def _as_png(image: Image) -> bytes:
    """An image as a PNG that the server reads as it would read the file that the image came from.

    Raises:
        ValueError: its mode has no equivalent.
    """
    if image.mode == "F":
        raise ValueError("it has floating-point pixels, which have no natural range; convert it to 8 bits")
    exif = image.getexif()
    if image.mode not in _PNG_MODES:
        image = image.convert("I;16" if image.mode == "I" else "RGB")
    buffer = BytesIO()
    image.save(buffer, format="PNG", compress_level=1, exif=exif)
    return buffer.getvalue()


def _stack(items: Sequence[Any], names: Names) -> Array:
    """Arrays and numbers as one array [N, *shape]."""
    arrays = []
    for place, item in enumerate(items):
        with guarded(names[place]):
            arrays.append(_as_array(item, names[place]))
    shapes = sorted({array.shape for array in arrays})
    if len(shapes) > 1:
        hint = (
            "; send images as files and the server resizes them"
            if len(shapes[-1]) > 1
            else "; recordings of different lengths are sent with their rate, rate=16000 for example"
        )
        raise InvalidArgumentError(f"inputs differ in shape ({', '.join(map(str, shapes))}){hint}")
    with guarded("inputs"):
        return np.stack(arrays)


def _as_array(item: Any, name: str) -> Array:
    refuse_masked(item, name)
    array = np.asarray(item)
    if array.dtype.kind != "O":
        return array
    # Rows of tables often hold plain numbers as objects.
    values = array.tolist()
    for value in array.flat:
        if kind := nothing(value):
            raise InvalidArgumentError(f"{name} holds {kind}; leave it out or fill in")
    return np.asarray(values)

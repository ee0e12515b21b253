"""Image files of any size, depth and colour to uint8 arrays of one shape."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from innerloop_trainer.data.class_digests import digest_classes
from innerloop_trainer.data.example_set import ExampleSet
from innerloop_trainer.data.file_tree import FileTree
from innerloop_trainer.data.progress import tracked
from innerloop_trainer.data.source import DataError

Color = Literal["L", "RGB"]
"""Gray or colour, by Pillow's names."""


class UnreadableImageError(ValueError):
    """Bytes that are no image, or one of a kind that can't be used."""


def decode_classes(
    tree: FileTree, classes: Mapping[str, Sequence[PurePosixPath]], size: tuple[int, int], color: Color
) -> ExampleSet:
    """Decode the files of every class, with a progress bar if someone watches.

    Args:
        tree: where the files are.
        classes: files by class name.
        size: height and width of the result in pixels.
        color: gray or colour.

    Raises:
        DataError: a file is no readable image; the message names it.
    """
    files = [path for paths in classes.values() for path in paths]
    counts = np.array([len(paths) for paths in classes.values()], dtype=np.int64)
    images = np.empty((len(files), 1 if color == "L" else 3, *size), dtype=np.uint8)
    hashes = []
    for index, path in enumerate(tracked(files, f"Decoding {tree.root.name}")):
        content = tree.read(path)
        hashes.append(hashlib.sha256(content).digest())
        try:
            images[index] = decode_image(content, size, color)
        except UnreadableImageError as error:
            raise DataError(f"{tree.root}: {path} {error}; replace or remove it") from error
    return ExampleSet(tuple(classes), counts, images, digest_classes(counts, hashes))


def decode_image(content: bytes, size: tuple[int, int], color: Color) -> NDArray[np.uint8]:
    """Decode one image file, turned upright as its EXIF data say, transparency over white, 16 bits to 8.

    Args:
        content: of the file.
        size: height and width to resize to, whatever the proportions were.
        color: gray or colour.

    Returns:
        [C, height, width].

    Raises:
        UnreadableImageError: it is no image, damaged, or of floating-point pixels.
    """
    try:
        with Image.open(io.BytesIO(content)) as opened:
            image = ImageOps.exif_transpose(opened)
            image = _flatten(image).convert(color)
    except UnreadableImageError:
        raise
    except UnidentifiedImageError as error:  # whose own message names an object in memory
        raise UnreadableImageError("is not a readable image (of no known format)") from error
    except Exception as error:  # decoders of damaged files raise almost anything, SyntaxError and struct.error included
        raise UnreadableImageError(f"is not a readable image ({error})") from error
    height, width = size
    # Bicubic is Pillow's own default, so a client that resizes its images itself sends what the model was trained on.
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    return pixels[None] if color == "L" else pixels.transpose(2, 0, 1)


def _flatten(image: Image.Image) -> Image.Image:
    """Eight bits a channel and no transparency."""
    if image.mode == "F":
        raise UnreadableImageError("has floating-point pixels, which have no natural range; convert it to 8 bits")
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image

"""Image files of any size, depth and colour to uint8 arrays of one shape.

What a person sees in an image must be there when it is decoded:

- it is turned upright, as its EXIF orientation says;
- transparent parts show white paper, or black where the drawing could not be seen on white;
- gray values of more than 8 bits are scaled by the depth that the image uses: 8, 10, 12, 14 or 16 bits, the least that
  holds its largest value (a 12-bit camera stores 0 to 4,095 in 16 bits). Floating-point values are from 0 to 1;
- what can't be scaled without a guess is refused.

Of a large JPEG, no more is decoded than the size that is asked for needs, with room to spare (`DRAFT_PIXELS`).

The rules look at one image alone, so that it is decoded alike in a training set and in a request.
"""

from io import BytesIO
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from innerloop_learner.media.formats import format_names, readable_formats

Color = Literal["L", "RGB"]
"""Gray or colour, by Pillow's names."""

MAX_PIXELS = 50_000_000
"""Most pixels of one image, in training and serving: a small file can unfold to a huge image."""

DRAFT_PIXELS, DRAFT_GAP = 4_000_000, 4
"""Pixels above which a JPEG is decoded at a half, a quarter or an eighth of its size, and how many times as high and
wide as what is asked for it must still be then: resized, it differs from the whole image by a few of 255 at edges."""

STRIPE = 256
"""Rows of an image that are put on paper at a time: an image of 50 million pixels takes 200 MB for each copy of it."""

DEPTHS = (8, 10, 12, 14, 16)
"""Numbers of bits per gray value that cameras and scanners use."""

CLEAREST = 32
"""A drawing whose darkest part differs from white by less than this, of 255, can't be seen on white."""

LEAST_COLOUR = 16
"""Pillow gives the upper 8 of 16 bits of a colour; where none reaches this value, the image uses 12 or fewer."""


class UnreadableImageError(ValueError):
    """Bytes are no image, or one that can't be used; the message is to follow the name of the file."""


def decode_image(content: bytes, size: tuple[int, int], color: Color) -> NDArray[np.uint8]:
    """Decode one image file.

    Args:
        content: content of the file.
        size: height and width in pixels to resize to; proportions are not kept.
        color: "L" for gray, "RGB" for colour.

    Returns:
        [C, height, width].

    Raises:
        UnreadableImageError: the content is no image, or it is damaged, too large, or has values that can't be scaled
            to 8 bits.
    """
    with open_image(content) as image:
        return fit_image(image, size, color)


def open_image(content: bytes) -> Image.Image:
    """Read the header of an image file.

    Raises:
        UnreadableImageError: the file's format is not read, or it is damaged or too large.
    """
    try:
        image = Image.open(BytesIO(content), formats=readable_formats())
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(f"has more than {MAX_PIXELS:,} pixels") from error
    except Exception as error:  # damaged files raise almost anything, SyntaxError and struct.error included
        raise UnreadableImageError(f"is not a readable image ({format_names()})") from error
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableImageError(f"has more than {MAX_PIXELS:,} pixels")
    return image


def fit_image(image: Image.Image, size: tuple[int, int], color: Color) -> NDArray[np.uint8]:
    """Decode an opened image as `decode_image` does."""
    height, width = size
    try:
        if image.width * image.height > DRAFT_PIXELS:
            least = DRAFT_GAP * max(size)
            image.draft(None, (least, least))  # does something for JPEGs only
        flat = _converted(_flatten(image), color)
        # Bicubic is Pillow's own default, so a client that resizes its images itself sends what the model learned on.
        pixels = np.asarray(flat.resize((width, height), Image.Resampling.BICUBIC))
    except UnreadableImageError:
        raise
    except Exception as error:  # decoders of damaged files raise almost anything
        raise UnreadableImageError("is damaged, or has colours that can't be converted") from error
    return pixels[None] if color == "L" else pixels.transpose(2, 0, 1)


def _flatten(image: Image.Image) -> Image.Image:
    """Turn an image upright, scale it to 8 bits per channel, and put transparent parts on paper."""
    cut = _loses_depth(image)
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_scale(np.asarray(image)))
    if cut and max(high for _, high in _extremes(image)) < LEAST_COLOUR:
        raise UnreadableImageError("has colours of 16 bits that use 12 or fewer; convert it to 8 bits")
    return _on_paper(_converted(image, "RGBA")) if image.has_transparency_data else image


def _converted(image: Image.Image, mode: str) -> Image.Image:
    """An image in another mode; no copy of one that is in that mode."""
    return image if image.mode == mode else image.convert(mode)


def _loses_depth(image: Image.Image) -> bool:
    """Whether Pillow reads only the upper 8 of 16 bits, because it has no mode for colours of more than 8 bits."""
    layouts = [str(tile[3]) for tile in getattr(image, "tile", ())]
    return not image.mode.startswith("I") and any(";16" in layout for layout in layouts)


def _extremes(image: Image.Image) -> list[tuple[int, int]]:
    """The least and the largest value of each channel, without transparency."""
    found = _converted(image, "RGB").getextrema()
    return [(int(low), int(high)) for low, high in found]  # type: ignore[misc]


def _scale(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale gray values [H, W] of more than 8 bits to 8 bits."""
    if values.dtype.kind == "f":
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise UnreadableImageError("has floating-point pixels that are not from 0 to 1; convert it to 8 bits")
        return np.asarray(np.rint(values * 255), np.uint8)
    largest = int(values.max())
    if values.min() < 0 or largest >= 2 ** DEPTHS[-1]:
        raise UnreadableImageError("has pixels of 32 bits that are not from 0 to 65,535; convert it to 8 bits")
    depth = next(depth for depth in DEPTHS if largest < 2**depth)
    return np.asarray(values >> (depth - 8), np.uint8)


def _on_paper(image: Image.Image) -> Image.Image:
    """Put an RGBA image on white, or on black if nothing of it can be seen on white."""
    white = _composite(image, "white")
    darkest = white.convert("L").getextrema()[0]
    # A fully transparent picture becomes white paper; a fully opaque one is the same on any paper.
    low, high = image.getchannel("A").getextrema()
    return white if 255 - darkest >= CLEAREST or low == high else _composite(image, "black")  # type: ignore[operator]


def _composite(image: Image.Image, paper: str) -> Image.Image:
    """Put an RGBA image on paper of a colour, some rows at a time."""
    result = Image.new("RGB", image.size)
    for top in range(0, image.height, STRIPE):
        part = image.crop((0, top, image.width, min(top + STRIPE, image.height)))
        flat = Image.alpha_composite(Image.new("RGBA", part.size, paper), part)
        result.paste(flat.convert("RGB"), (0, top))
    return result

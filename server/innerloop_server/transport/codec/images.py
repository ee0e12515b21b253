"""Image files to arrays, the way the trainer's data sources read them."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from innerloop_server.transport.codec.violations import Violations

FORMATS = ("PNG", "JPEG")
MAX_PIXELS = 50_000_000
"""Of one image; a small file can unfold to a huge image."""
MAX_PIXELS_IN_ALL = 1_000_000_000
"""Of all images of one request."""


class UnreadableImageError(ValueError):
    """A file that is no usable image; the message says why."""


def decode_images(
    files: Sequence[bytes], field: str, shape: tuple[int, ...], violations: Violations
) -> NDArray[np.uint8] | None:
    """Images [N, channels, height, width] from PNG or JPEG files.

    Args:
        files: contents.
        field: path of the repeated field, for violations.
        shape: channels, height and width to convert and resize to.
        violations: receives what is wrong.

    Returns:
        None when something is wrong.
    """
    images = np.empty((len(files), *shape), np.uint8)
    pixels = 0
    for index, content in enumerate(files):
        try:
            with open_image(content) as image:
                pixels += image.width * image.height
                if pixels > MAX_PIXELS_IN_ALL:
                    violations.add(field, f"unfold to more than {MAX_PIXELS_IN_ALL:,} pixels in all; send fewer")
                    return None
                images[index] = _fit(image, shape)
        except UnreadableImageError as error:
            violations.add(f"{field}[{index}]", str(error))
            return None
    return images


def open_image(content: bytes) -> Image.Image:
    """Read the header of an image file.

    Raises:
        UnreadableImageError: not PNG or JPEG, damaged, or too large.
    """
    try:
        image = Image.open(BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(f"has more than {MAX_PIXELS:,} pixels") from error
    except Exception as error:  # damaged files raise almost anything
        raise UnreadableImageError("is not a readable PNG or JPEG file") from error
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableImageError(f"has more than {MAX_PIXELS:,} pixels")
    return image


def _fit(image: Image.Image, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    channels, height, width = shape
    try:
        # Upright, without transparency, eight bits, bicubic: exactly what models were trained on.
        flat = _flatten(ImageOps.exif_transpose(image)).convert("L" if channels == 1 else "RGB")
        pixels = np.asarray(flat.resize((width, height), Image.Resampling.BICUBIC))
    except Exception as error:  # damaged files raise almost anything
        raise UnreadableImageError("is damaged") from error
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _flatten(image: Image.Image) -> Image.Image:
    """Eight bits a channel, transparency over white."""
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image

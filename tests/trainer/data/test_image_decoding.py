import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from innerloop_trainer.data.decode import UnreadableImageError, decode_image


def encoded(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def test_any_size_becomes_the_size_asked_for_height_first() -> None:
    content = encoded(Image.new("RGB", (50, 20), (10, 20, 30)))
    pixels = decode_image(content, (7, 9), "RGB")
    assert pixels.shape == (3, 7, 9)
    assert pixels.dtype == np.uint8
    assert pixels[:, 3, 4].tolist() == [10, 20, 30]


def test_shrinking_averages_instead_of_dropping_lines() -> None:
    stripes = np.zeros((90, 90), dtype=np.uint8)
    stripes[::3] = 255
    pixels = decode_image(encoded(Image.fromarray(stripes)), (9, 9), "L").astype(int)
    assert np.abs(pixels - 85).max() < 15


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("1", (4, 4), 1), [255, 255, 255]),
        (Image.new("L", (4, 4), 40), [40, 40, 40]),
        (Image.new("LA", (4, 4), (40, 0)), [255, 255, 255]),
        (Image.new("LA", (4, 4), (40, 255)), [40, 40, 40]),
        (Image.new("RGBA", (4, 4), (200, 0, 0, 255)), [200, 0, 0]),
        (Image.new("RGBA", (4, 4), (200, 0, 0, 0)), [255, 255, 255]),
        (Image.new("RGB", (4, 4), (1, 2, 250)).quantize(4), [1, 2, 250]),
        (Image.fromarray(np.full((4, 4), 40 * 256 + 3, dtype=np.uint16)), [40, 40, 40]),
    ],
    ids=["1 bit", "gray", "gray clear", "gray opaque", "colour opaque", "colour clear", "palette", "16 bits"],
)
def test_every_kind_of_pixel_becomes_eight_bits_over_white(image: Image.Image, expected: list[int]) -> None:
    assert decode_image(encoded(image), (4, 4), "RGB")[:, 1, 1].tolist() == expected


def test_a_clear_palette_colour_becomes_white() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([9, 9, 9, 200, 0, 0])
    assert decode_image(encoded(image, transparency=0), (4, 4), "RGB")[:, 1, 1].tolist() == [255, 255, 255]
    assert decode_image(encoded(image, transparency=b"\x00\xff"), (4, 4), "L")[:, 1, 1].tolist() == [255]


def test_a_photograph_taken_sideways_is_turned_upright() -> None:
    upright = np.zeros((8, 4), dtype=np.uint8)
    upright[:4] = 200
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees clockwise to show
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(upright)))
    pixels = decode_image(encoded(stored, exif=exif), (8, 4), "L")
    np.testing.assert_array_equal(pixels[0], upright)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not an image",
        encoded(Image.new("L", (64, 64)))[:60],
        encoded(Image.effect_noise((64, 64), 50), "JPEG")[:800],
        encoded(Image.fromarray(np.zeros((4, 4), dtype=np.float32)), "TIFF"),
    ],
    ids=["empty", "text", "cut PNG", "cut JPEG", "floating point"],
)
def test_what_is_no_usable_image_is_refused(content: bytes) -> None:
    with pytest.raises(UnreadableImageError):
        decode_image(content, (8, 8), "RGB")

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from innerloop_learner.media import UnreadableImageError, decode_image, readable_extensions
from innerloop_learner.media.formats import EXTENSIONS


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
    ],
    ids=["1 bit", "gray", "gray clear", "gray opaque", "colour opaque", "colour clear", "palette"],
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
        encoded(Image.fromarray(np.full((4, 4), 40, dtype=np.float32)), "TIFF"),
        encoded(Image.fromarray(np.full((4, 4), np.nan, dtype=np.float32)), "TIFF"),
        encoded(Image.fromarray(np.full((4, 4), 70_000, dtype=np.int32)), "TIFF"),
        encoded(Image.fromarray(np.full((4, 4), -1, dtype=np.int32)), "TIFF"),
    ],
    ids=["empty", "text", "cut PNG", "cut JPEG", "floating point", "not a number", "32 bits", "negative"],
)
def test_what_is_no_usable_image_is_refused(content: bytes) -> None:
    with pytest.raises(UnreadableImageError):
        decode_image(content, (8, 8), "RGB")


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_gray_values_are_scaled_by_the_depth_that_the_image_uses(bits: int, dtype: type) -> None:
    ramp = np.linspace(0, 2**bits - 1, 256).astype(dtype).reshape(16, 16)
    pixels = decode_image(encoded(Image.fromarray(ramp), "TIFF"), (16, 16), "L")
    assert np.abs(pixels.ravel().astype(int) - np.arange(256)).max() <= 1


def test_floating_point_pixels_from_0_to_1_are_scaled() -> None:
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    assert decode_image(encoded(Image.fromarray(ramp), "TIFF"), (16, 16), "L").ravel().tolist() == list(range(256))


def colours_of_16_bits(largest: int) -> bytes:
    """A PNG of 2 x 2 pixels with 16 bits for each colour, which Pillow reads but does not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    row = b"\0" + struct.pack(">6H", 0, largest, 0, largest, 0, 0)
    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * 2)) + chunk(b"IEND", b"")


def test_colours_of_16_bits_are_refused_where_only_their_lower_bits_are_used() -> None:
    assert decode_image(colours_of_16_bits(65_535), (2, 2), "RGB").max() == 255
    with pytest.raises(UnreadableImageError, match="16 bits that use 12 or fewer; convert it to 8 bits"):
        decode_image(colours_of_16_bits(4_095), (2, 2), "RGB")


@pytest.mark.parametrize("ink", ["white", "black", "red", (255, 255, 200)])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_drawing_on_transparent_ground_can_be_seen_whatever_its_colour(ink: Any, mode: str) -> None:
    image = Image.new("RGBA", (16, 16))
    image.paste(ink, (4, 4, 12, 12))
    options = {"transparency": 0} if mode == "P" else {}
    if mode == "P":
        image = palette(image)
    pixels = decode_image(encoded(image.convert(mode), **options), (16, 16), "L")
    assert np.ptp(pixels) > 32


def palette(image: Image.Image) -> Image.Image:
    """The image with colour 0 for what is transparent, and colour 1 for what is not."""
    flat = Image.new("P", image.size, 0)
    flat.putpalette([0, 0, 0, *image.convert("RGB").getpixel((8, 8))])  # type: ignore[misc]
    flat.paste(1, (0, 0), image.getchannel("A"))
    return flat


def test_nothing_at_all_is_white_paper() -> None:
    assert decode_image(encoded(Image.new("RGBA", (4, 4))), (4, 4), "L").min() == 255


@pytest.mark.parametrize("name", sorted(readable_extensions()))
def test_every_format_that_is_listed_is_read(name: str) -> None:
    form = next(form for form, extensions in EXTENSIONS.items() if name in extensions)
    if form == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    pixels = decode_image(encoded(Image.fromarray(gray), form), (16, 16), "L")
    assert np.abs(pixels[0].astype(int) - gray).max() < 24


def test_formats_that_are_not_listed_are_refused_with_those_that_are() -> None:
    with pytest.raises(UnreadableImageError, match="PNG, JPEG, WEBP"):
        decode_image(encoded(Image.new("L", (4, 4)), "PCX"), (4, 4), "L")


def test_a_large_jpeg_is_decoded_in_part_and_looks_as_the_whole_does() -> None:
    random = np.random.default_rng(0)
    whole = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((2400, 1800))
    content = encoded(whole, "JPEG", quality=90)
    reduced = decode_image(content, (84, 64), "RGB").astype(int)
    expected = np.asarray(Image.open(io.BytesIO(content)).resize((64, 84))).transpose(2, 0, 1).astype(int)
    assert np.abs(reduced - expected).max() <= 8
    assert np.abs(reduced - expected).mean() < 0.5


def test_transparent_parts_of_a_high_image_are_put_on_paper_everywhere() -> None:
    image = Image.new("RGBA", (2, 600), (0, 0, 0, 0))
    image.paste((200, 0, 0, 255), (0, 500, 2, 600))
    pixels = decode_image(encoded(image), (600, 2), "RGB")
    assert (pixels[:, :490] == 255).all()
    assert (pixels[:, 510:, 0] == np.array([[200], [0], [0]])).all()

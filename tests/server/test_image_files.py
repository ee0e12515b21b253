"""Image files in requests."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from wire import images

from innerloop_learner.media import decode_image
from innerloop_server.domain.errors import InvalidRequestError
from innerloop_server.transport.codec import images as images_module
from innerloop_server.transport.codec.requests import RequestLimits, decode_query

LIMITS = RequestLimits(support=4, query=4, time_to_live=60.0, max_time_to_live=600.0, message_bytes=2**20)


def encoded(image, form="PNG", **options):
    buffer = BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def photo(mode="RGB", size=(31, 17)):
    width, height = size
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 4), dtype=np.uint8)
    return Image.fromarray(pixels, "RGBA").convert(mode) if mode != "RGBA" else Image.fromarray(pixels)


def turned(image):
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(image, "JPEG", exif=exif)


def white_on_nothing():
    image = Image.new("RGBA", (31, 17))
    image.paste("white", (5, 5, 20, 12))
    return image


FILES = {
    "gray png": encoded(photo("L")),
    "colour png": encoded(photo("RGB")),
    "transparent png": encoded(photo("RGBA")),
    "palette png": encoded(photo("RGB").quantize(16)),
    "black and white png": encoded(photo("1")),
    "16 bit png": encoded(Image.fromarray(np.arange(0, 31 * 17 * 100, 100, dtype=np.uint16).reshape(17, 31))),
    "jpeg": encoded(photo("RGB"), "JPEG"),
    "gray jpeg": encoded(photo("L"), "JPEG"),
    "cmyk jpeg": encoded(photo("CMYK"), "JPEG"),
    "turned jpeg": turned(photo("RGB")),
    "12 bit tiff": encoded(Image.fromarray(np.arange(31 * 17, dtype=np.uint16).reshape(17, 31) * 7), "TIFF"),
    "white on nothing": encoded(white_on_nothing()),
    "webp": encoded(photo("RGB"), "WEBP"),
    "bmp": encoded(photo("RGB"), "BMP"),
    "gif": encoded(photo("L"), "GIF"),
    "pgm": encoded(photo("L"), "PPM"),
    "avif": encoded(photo("RGB"), "AVIF"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(("channels", "color"), [(1, "L"), (3, "RGB")])
def test_a_served_model_sees_what_training_would_have_seen(fake_model, name, channels, color):
    model = fake_model(input_shape=(channels, 9, 8))
    query = decode_query(images(FILES[name]), model, LIMITS)
    assert query.shape == (1, channels, 9, 8)
    assert np.array_equal(query[0], decode_image(FILES[name], (9, 8), color))


def violation(model, *files):
    with pytest.raises(InvalidRequestError) as refused:
        decode_query(images(*files), model, LIMITS)
    (found,) = refused.value.violations
    return found


def png_header(width, height):
    """A PNG that claims to be huge and holds next to nothing."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "damaged",
    [b"", b"not an image", FILES["jpeg"][:200], FILES["gray png"][:-40], encoded(photo("RGB"), "PCX")],
    ids=["empty", "text", "truncated jpeg", "truncated png", "pcx"],
)
def test_a_file_that_is_no_readable_image_is_named_by_its_index(fake_model, damaged):
    field, _ = violation(fake_model(), FILES["gray png"], damaged)
    assert field == "query.images.files[1]"


def test_all_files_that_are_no_images_are_named_as_far_as_there_is_room(fake_model, monkeypatch):
    monkeypatch.setattr(images_module, "MOST_NAMED", 2)
    with pytest.raises(InvalidRequestError) as refused:
        decode_query(images(b"", FILES["gray png"], b"", b""), fake_model(), LIMITS)
    assert [found.field for found in refused.value.violations] == ["query.images.files[0]", "query.images.files[2]"]


@pytest.mark.parametrize("size", [(60_000, 1_000), (200_000, 200_000)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_that_would_unfold_hugely_is_refused_unopened(fake_model, size):
    field, description = violation(fake_model(), png_header(*size))
    assert field == "query.images.files[0]"
    assert "pixels" in description


def test_many_images_may_not_unfold_hugely_either(fake_model, monkeypatch):
    monkeypatch.setattr(images_module, "MAX_PIXELS_IN_ALL", 31 * 17 + 1)
    field, description = violation(fake_model(), FILES["gray png"], FILES["gray png"])
    assert (field, "in all" in description) == ("query.images.files", True)


def test_too_many_files_are_refused_before_any_is_decoded(fake_model):
    field, description = violation(fake_model(), *[b"not an image"] * 5)
    assert (field, description) == ("query.images.files", "has 5 examples, at most 4 are accepted")


@pytest.mark.parametrize("changes", [{"input_shape": (2,), "input_dtype": "float32"}, {"input_shape": (5, 8, 8)}])
def test_a_model_of_other_inputs_takes_no_images(fake_model, changes):
    field, description = violation(fake_model(**changes), FILES["gray png"])
    assert field == "query.images.files"
    assert "takes no images" in description

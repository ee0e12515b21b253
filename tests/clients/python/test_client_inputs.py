"""Which forms of inputs the SDK takes, and what of them goes over the wire."""

from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import ExifTags, Image

from innerloop import InvalidArgumentError
from innerloop.tensors import decode_tensor, encode_tensor
from innerloop.v1 import model_pb2

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 32, 30, 3), dtype=np.uint8)
LABELS = ["a", "b", "c"]


def sent(server):
    """The only support set that the server received, as an array or as files."""
    (request,) = server.requests("Adapt")
    inputs = request.support.inputs
    return decode_tensor(inputs.tensor) if inputs.HasField("tensor") else list(inputs.images.files)


def pixels_of(file):
    return np.asarray(Image.open(BytesIO(file)))


@pytest.mark.parametrize(
    ("model", "given_inputs", "expected"),
    [
        ("colour", PIXELS, PIXELS.transpose(0, 3, 1, 2)),
        ("colour", list(PIXELS), PIXELS.transpose(0, 3, 1, 2)),
        ("colour", list(PIXELS.transpose(0, 3, 1, 2)), PIXELS.transpose(0, 3, 1, 2)),
        ("grey", PIXELS[..., 0], PIXELS[:, None, :, :, 0]),
        ("grey", list(PIXELS[..., 0]), PIXELS[:, None, :, :, 0]),
        ("grey", PIXELS[..., :1], PIXELS[:, None, :, :, 0]),
        ("waves", [0.5, 1, 2], np.array([[0.5], [1], [2]], np.float32)),
        ("waves", np.array([0.5, 1, 2]), np.array([[0.5], [1], [2]], np.float32)),
        ("vectors", [[1, 2, 3, 4]] * 3, np.array([[1, 2, 3, 4]] * 3)),
    ],
    ids=[
        "channels last",
        "list, channels last",
        "list, channels first",
        "no channels",
        "list, no channels",
        "one channel last",
        "numbers",
        "array of numbers",
        "list of vectors",
    ],
)
async def test_arrays_travel_in_the_shape_of_the_model(client, server, model, given_inputs, expected):
    await client.adapt(model, given_inputs, LABELS)
    np.testing.assert_array_equal(sent(server), expected)


@pytest.mark.parametrize(
    ("model", "array"),
    [("colour", PIXELS.transpose(0, 3, 1, 2)), ("vectors", np.zeros((3, 4), np.float32))],
    ids=["channels first", "vectors"],
)
async def test_arrays_in_wire_form_need_no_question_about_the_model(client, server, model, array):
    adaptation = await client.adapt(model, array, LABELS)
    await adaptation.predict(array)
    assert [received.method for received in server.received] == ["Adapt", "Predict"]


async def test_the_input_shape_is_asked_for_once_per_model(client, server):
    for _ in range(2):
        adaptation = await client.adapt("colour", PIXELS, LABELS)
        await adaptation.predict(PIXELS)
    assert len(server.requests("GetModel")) == 1


async def test_an_array_that_fits_no_way_is_left_to_the_server_to_judge(client, server):
    wrong = np.zeros((3, 7, 7), np.uint8)
    await client.adapt("colour", wrong, LABELS)
    assert sent(server).shape == wrong.shape


async def test_images_travel_as_lossless_files(client, server):
    await client.adapt("colour", [Image.fromarray(image) for image in PIXELS], LABELS)
    np.testing.assert_array_equal([pixels_of(file) for file in sent(server)], PIXELS)
    assert not server.requests("GetModel")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
async def test_images_of_every_mode_can_be_sent(client, server, mode):
    image = Image.fromarray(PIXELS[0]).convert("L").convert(mode)
    await client.adapt("colour", [image], ["a"])
    (file,) = sent(server)
    reference = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(np.asarray(Image.open(BytesIO(file)).convert("RGB")).astype(int) - reference).max() <= 1


@pytest.mark.parametrize("mode", ["I;16", "I"])
async def test_images_of_sixteen_bits_keep_them(client, server, mode):
    values = np.arange(0, 60_000, 15_000, dtype=np.uint16).reshape(2, 2)
    await client.adapt("grey", [Image.fromarray(values).convert(mode)], ["a"])
    np.testing.assert_array_equal(pixels_of(*sent(server)), values)


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
async def test_an_image_travels_with_which_way_up_it_is_as_its_file_would(client, server, mode):
    upside_down, file = Image.Exif(), BytesIO()
    upside_down[ExifTags.Base.Orientation] = 3
    Image.fromarray(PIXELS[0]).convert(mode).save(file, "JPEG", exif=upside_down)
    await client.adapt("colour", [Image.open(file)], ["a"])
    assert dict(Image.open(BytesIO(*sent(server))).getexif()) == dict(upside_down)


async def test_files_images_and_bytes_may_be_mixed_and_files_are_sent_as_they_are(client, server, tmp_path):
    file = tmp_path / "a.jpg"
    Image.fromarray(PIXELS[0]).save(file)
    image = Image.fromarray(PIXELS[1])
    await client.adapt("colour", [file, str(file), file.read_bytes(), image], [1, 2, 3, 4])
    assert sent(server)[:3] == [file.read_bytes()] * 3
    np.testing.assert_array_equal(pixels_of(sent(server)[3]), PIXELS[1])


async def test_a_file_may_be_its_content_in_any_form_or_an_open_file(client, server, tmp_path):
    content, written = b"content of a file", BytesIO()
    written.write(content)  # and left at its end, as after PIL's Image.save
    (tmp_path / "a.png").write_bytes(content)
    with (tmp_path / "a.png").open("rb") as opened:
        forms = [bytearray(content), memoryview(content), BytesIO(content), written, opened]
        await client.adapt("colour", forms, range(5))
        opened.close()
        with pytest.raises(InvalidArgumentError, match=r"a\.png': the file is closed"):
            await client.adapt("colour", [opened], ["a"])
    assert sent(server) == [content] * 5


async def test_an_image_that_was_closed_is_named(client, tmp_path):
    Image.fromarray(PIXELS[0]).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as closed:
        pass
    (content := BytesIO()).write((tmp_path / "a.png").read_bytes())
    nameless = Image.open(content)
    nameless.close()
    with pytest.raises(InvalidArgumentError, match=r"a\.png': the image was closed .*query 2: the image was closed"):
        await client.adapt_predict("colour", [PIXELS[0]], ["a"], query=[closed, Image.fromarray(PIXELS[0]), nameless])


async def test_any_iterable_of_paths_will_do(client, server, tmp_path):
    Image.fromarray(PIXELS[0]).save(tmp_path / "a.png")
    await client.adapt("colour", tmp_path.glob("*.png"), ["a"])
    assert sent(server) == [(tmp_path / "a.png").read_bytes()]


@pytest.mark.parametrize(
    ("given_inputs", "message"),
    [
        ([], "no inputs"),
        (np.zeros((0, 1, 28, 28)), "no inputs"),
        (np.float32(1), "not in a list"),
        ("picture.png", "into a list"),
        (Path("picture.png"), "into a list"),
        (Image.fromarray(PIXELS[0]), "into a list"),
        (["the film was great"], "strings are taken for paths"),
        ([Path("absent.png")], "can't read 'absent.png': No such file"),
        ([PIXELS[0], b"file"], "mixture"),
        ([PIXELS[0], PIXELS[1, :5]], r"\(5, 30, 3\), \(32, 30, 3\)"),
        ([Image.new("F", (2, 2))], r"support example 0 \(label 'a'\): it has floating-point pixels"),
        ([Image.new("La", (2, 2))], r"support example 0 \(label 'a'\): conversion from La"),
        (np.zeros((3, 1, 28, 28), bool), "uint8 from 0 to 255"),
        (np.zeros((3, 4), complex), "complex128"),
        ([["a", "b"], ["c", "d"], ["e", "f"]], "can't be sent"),
        ([PIXELS[0], None], "support example 1 is None"),
        ([1.0, float("nan"), 2.0], "support example 1 is NaN"),
        (np.array([[1.0, 2.0], [3.0, np.nan]]), r"support example 1 \(label 'b'\) holds NaN"),
        ([[1.0, 2.0], [3.0, None]], r"support example 1 \(label 'b'\) holds None"),
        (np.ma.masked_equal([[1, 2], [3, 4], [5, -1]], -1), "an input holds masked elements"),
        (list(np.ma.masked_equal([[1, 2], [3, 4], [5, -1]], -1)), "support example 2 .* holds masked elements"),
        (["a text", "", " "], "support example 1 is an empty text, support example 2 is an empty text"),
        (np.array(["a text", None], dtype=object), "support example 1 is None"),
        ([b"file", b""], r"support example 1 \(label 'b'\): it is empty"),
        ([Path("absent.png"), b"file", Path("lost.png")], "'absent.png': No such file .*'lost.png': No such file"),
        (BytesIO(b"file"), "into a list"),
        ([StringIO("text")], 'mode "rb"'),
        ({1: PIXELS[0]}, "have an order"),
        (3, "not iterable"),
    ],
    ids=[
        "empty list",
        "empty array",
        "a number",
        "a string",
        "a path",
        "an image",
        "texts",
        "absent file",
        "mixture",
        "two sizes",
        "floating-point image",
        "image of a mode without equivalent",
        "booleans",
        "complex numbers",
        "lists of texts",
        "none among images",
        "none among numbers",
        "none in an array",
        "none in a list of vectors",
        "a masked array",
        "a masked array among others",
        "empty texts",
        "none among texts",
        "empty file",
        "several absent files",
        "an open file",
        "a file opened as a text",
        "no order",
        "no inputs at all",
    ],
)
async def test_what_can_not_be_sent_is_refused_with_a_reason(client, server, given_inputs, message):
    with pytest.raises(InvalidArgumentError, match=message):
        await client.adapt("grey", given_inputs, LABELS)
    assert not server.requests("Adapt")


@settings(deadline=None)  # other work on the machine must not fail it
@given(
    arrays(
        st.sampled_from(["u1", "<f2", "<f4", ">f4", "i1", "<i2", ">i4", "<i8", "u2", "u4"]),
        array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5),
    )
)
def test_a_tensor_survives_the_wire(array):
    for layout in (array, array.T, array[::2]):
        received = decode_tensor(encode_tensor(layout))
        assert received.shape == layout.shape
        np.testing.assert_array_equal(received, layout)


def test_float64_travels_as_float32():
    assert decode_tensor(encode_tensor(np.array([1 / 3]))).tolist() == [np.float32(1 / 3)]


@pytest.fixture
def texts(server):
    """A model that takes texts."""
    server.models["texts"] = model_pb2.Model(name="texts", input_kind=model_pb2.INPUT_KIND_TEXT)
    return "texts"


@pytest.mark.parametrize(
    "inputs",
    [["a", "b", "c"], ("a", "b", "c"), np.array(["a", "b", "c"]), np.array(["a", "b", "c"], dtype=object)],
    ids=["list", "tuple", "array", "objects"],
)
async def test_strings_travel_as_texts_to_a_model_that_takes_texts(client, server, texts, inputs):
    adaptation = await client.adapt(texts, inputs, LABELS)
    await adaptation.predict(text for text in inputs)
    (adapted,), (asked,) = server.requests("Adapt"), server.requests("Predict")
    assert list(adapted.support.inputs.texts.values) == list(asked.query.texts.values) == ["a", "b", "c"]
    assert len(server.requests("GetModel")) == 1


async def test_a_file_is_no_text(client, server, texts):
    with pytest.raises(InvalidArgumentError, match="query 1 is a file, and this model takes texts; send strings"):
        await client.adapt_predict(texts, ["a", "b"], ["a", "b"], query=["a text", Path("a.png")])
    assert not server.requests("AdaptPredict")


async def test_a_single_text_is_no_list_of_texts(client, texts):
    with pytest.raises(InvalidArgumentError, match="put a single one into a list"):
        await client.adapt(texts, "a text", LABELS)

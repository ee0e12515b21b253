"""Frozen encoders: what is found out about a graph, features, and what is refused."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from encoders import (
    AUDIO_FEATURES,
    IMAGE_FEATURES,
    SIZE,
    WORDS,
    audio_encoder,
    entangled_encoder,
    image_encoder,
    sentence_encoder,
    token_encoder,
    tokenizer,
    word_vectors,
)
from hypothesis import given
from hypothesis import strategies as st

from innerloop_learner.encoders import (
    EncoderError,
    EncoderOptions,
    EncoderOrigin,
    EncoderSpec,
    FrozenEncoder,
    describe_encoder,
    join_packed,
    open_encoder,
    pack_texts,
    unpack_texts,
)

TEXTS = ["card lost", "exchange rate", "", "top up failed slow transfer", "whatever", "pin " * 50]


def texts(graph: bytes = b"", **options: Any) -> FrozenEncoder:
    return describe_encoder(graph or token_encoder(), tokenizer(), EncoderOptions(**options))


def images(graph: bytes = b"", **options: Any) -> FrozenEncoder:
    return describe_encoder(graph or image_encoder(), None, EncoderOptions(**options))


def audio(graph: bytes = b"", **options: Any) -> FrozenEncoder:
    given = {"rate": 8000, "shape": (800,), **options}
    return describe_encoder(graph or audio_encoder(), None, EncoderOptions(**given))


def sounds(count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).uniform(-1, 1, (count, 800)).astype(np.float32)


def pictures(count: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (count, 1, 8, 8), dtype=np.uint8)


def by_hand(text: str, tokens: int = 256) -> np.ndarray[Any, Any]:
    """Mean of a text's word vectors, of length 1."""
    known = {word: index + 2 for index, word in enumerate(WORDS)}
    ids = [known.get(word, 1) for word in text.split()][:tokens]
    mean = word_vectors()[ids].mean(0) if ids else np.zeros(SIZE)
    return mean / max(float(np.linalg.norm(mean)), 1e-12)


@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20), max_size=8))
def test_packed_texts_come_back_as_they_were(given_texts: list[str]) -> None:
    assert unpack_texts(pack_texts(given_texts)) == given_texts
    parts = [pack_texts(given_texts[:3]), pack_texts(given_texts[3:])]
    assert unpack_texts(join_packed(parts)) == given_texts


def test_a_text_that_could_not_be_told_from_its_padding_is_refused() -> None:
    with pytest.raises(EncoderError, match=r"text 1 has a character U\+0000"):
        pack_texts(["fine", "not\0fine"])


@pytest.mark.parametrize("mask", [False, True])
def test_token_vectors_are_averaged_over_real_tokens_and_brought_to_length_one(mask: bool) -> None:
    encoder = texts(token_encoder(mask=mask))
    spec = encoder.spec
    assert (spec.input, spec.features, spec.output) == ("texts", SIZE, "token_embeddings")
    assert (spec.pooling, spec.normalise, spec.max_tokens) == ("mean", True, 256)
    np.testing.assert_allclose(encoder.encode(pack_texts(TEXTS)), [by_hand(text) for text in TEXTS], atol=1e-6)


def test_what_a_user_says_of_an_encoder_is_done() -> None:
    encoder = texts(pooling="first", normalise=False, max_tokens=2)
    vectors = word_vectors()
    np.testing.assert_allclose(encoder.encode(pack_texts(["lost card", "new"])), [vectors[3], vectors[14]])
    two = texts(max_tokens=2).encode(pack_texts(["lost card stolen", "lost card pin"]))
    np.testing.assert_allclose(two, [by_hand("lost card")] * 2, atol=1e-6)


def test_the_tokenizer_says_where_texts_are_cut() -> None:
    assert describe_encoder(token_encoder(), tokenizer(max_length=7), EncoderOptions()).spec.max_tokens == 7


def test_texts_of_different_lengths_never_share_a_batch_where_there_is_no_mask() -> None:
    encoder = texts(sentence_encoder(), normalise=False)
    assert (encoder.spec.pooling, encoder.spec.output) == ("none", "sentence_embedding")
    vectors = word_vectors()
    expected = [vectors[2:4].sum(0), vectors[2], vectors[[2, 2, 2]].sum(0)]
    np.testing.assert_allclose(encoder.encode(pack_texts(["card lost", "card", "card card card"])), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, "L"), (4, "L"), (1, 16), (4, 16)])
def test_graphs_of_fixed_sizes_give_the_same_features(shape: tuple[int, int | str]) -> None:
    fixed = texts(token_encoder(shape, mask=True))
    assert fixed.spec.max_tokens == (16 if shape[1] == 16 else 256)
    free = texts(token_encoder(mask=True), max_tokens=fixed.spec.max_tokens)
    np.testing.assert_allclose(fixed.encode(pack_texts(TEXTS)), free.encode(pack_texts(TEXTS)), atol=1e-6)


def test_features_of_thousands_of_texts_come_in_their_order() -> None:
    random = np.random.default_rng(0)
    many = [" ".join(random.choice(WORDS, random.integers(1, 9))) for _ in range(2500)]
    np.testing.assert_allclose(texts().encode(pack_texts(many)), [by_hand(text) for text in many], atol=1e-5)


@pytest.mark.parametrize("maps", [False, True])
def test_images_are_brought_to_the_range_the_encoder_wants(maps: bool) -> None:
    encoder = images(image_encoder(maps=maps), mean=(0.4,), std=(0.2,), normalise=False)
    assert (encoder.spec.features, encoder.spec.pooling) == (IMAGE_FEATURES, "mean" if maps else "none")
    raw = images(scale=1.0, normalise=False)
    pixels = pictures(70)
    scaled = (pixels / np.float32(255) - np.float32(0.4)) / np.float32(0.2)
    np.testing.assert_allclose(encoder.encode(pixels), raw.encode(scaled.astype(np.float32)), atol=1e-5)
    np.testing.assert_allclose(encoder.encode(pixels.astype(np.float32)), encoder.encode(pixels))


def test_an_image_and_its_mirror_image_have_the_same_features_with_flip() -> None:
    plain, flipping = images(normalise=False), images(normalise=False, flip=True)
    pixels = pictures(40)
    mirrored = pixels[..., ::-1]
    expected = (plain.encode(pixels) + plain.encode(mirrored)) / 2
    np.testing.assert_allclose(flipping.encode(pixels), expected, atol=1e-5)
    np.testing.assert_allclose(flipping.encode(mirrored), expected, atol=1e-5)


def test_an_encoder_of_bytes_gets_pixels_as_they_are() -> None:
    taking_bytes, raw = images(image_encoder(dtype="uint8")), images(scale=1.0)
    np.testing.assert_allclose(taking_bytes.encode(pictures(5)), raw.encode(pictures(5)), atol=1e-6)
    with pytest.raises(EncoderError, match="takes pixels as they are; leave mean, scale out"):
        images(image_encoder(dtype="uint8"), mean=(0.5,), scale=1.0)


def test_an_encoder_of_any_size_takes_that_of_the_images() -> None:
    free = image_encoder(("N", 1, "height", "width"))
    assert images(free, shape=(1, 8, 8)).spec.shape == (1, 8, 8)
    with pytest.raises(EncoderError, match="no images to say which"):
        images(free)


def test_windows_of_audio_are_pooled_as_asked() -> None:
    windows = audio(audio_encoder(form="maps"), pooling="none").encode(sounds(40))[:, 0]  # [N, W, F]
    assert windows.shape == (40, 8, AUDIO_FEATURES)
    expected = {
        "mean": windows.mean(1),
        "first": windows[:, 0],
        "mean-max": np.concatenate([windows.mean(1), windows.max(1)], 1),
        "thirds": np.concatenate([windows[:, :3].mean(1), windows[:, 3:6].mean(1), windows[:, 6:].mean(1)], 1),
    }
    for pooling, features in expected.items():
        encoder = audio(pooling=pooling, normalise=False)
        assert (encoder.spec.input, encoder.spec.shape, encoder.spec.rate) == ("audio", (800,), 8000)
        assert encoder.spec.features == features.shape[1]
        np.testing.assert_allclose(encoder.encode(sounds(40)), features, atol=1e-5)
    lengths = np.linalg.norm(audio().encode(sounds(3)), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-5, err_msg="one vector is brought to length one")


def test_maps_stay_maps_for_convolutional_backbones() -> None:
    spec = audio(audio_encoder(form="maps"), pooling="none").spec
    assert (spec.features, spec.feature_shape, spec.normalise) == (8 * AUDIO_FEATURES, (1, 8, AUDIO_FEATURES), False)
    assert spec.output_shape == (1, 8, AUDIO_FEATURES)
    pixels = images(image_encoder(maps=True), pooling="none")
    assert pixels.encode(pictures(2)).shape == (2, *pixels.spec.output_shape) == (2, IMAGE_FEATURES, 6, 6)
    assert audio().spec.output_shape == (AUDIO_FEATURES,)


def test_maxima_of_texts_leave_padding_out() -> None:
    encoder = texts(token_encoder(mask=True), pooling="mean-max", normalise=False)
    two = pack_texts(["card lost", "card lost stolen rate exchange euro"])
    np.testing.assert_allclose(encoder.encode(two)[:1], encoder.encode(two[:1]), atol=1e-6)
    assert encoder.spec.features == 2 * SIZE


def test_the_origin_is_kept_and_changes_no_features() -> None:
    encoder = images()
    spec = replace(encoder.spec, origin=EncoderOrigin("birds", "a package", "MIT", "12ab"))
    again = open_encoder(spec, encoder.files)
    assert again.digest == encoder.digest
    assert EncoderSpec.from_json(json.loads(json.dumps(asdict(spec)))) == spec


def test_an_encoder_opens_again_from_its_files_and_spec() -> None:
    for encoder, raw in ((texts(), pack_texts(TEXTS)), (images(), pictures(3)), (audio(), sounds(3))):
        again = open_encoder(encoder.spec, {**encoder.files, "adapt.onnx": b"of no concern"})
        assert again.digest == encoder.digest
        np.testing.assert_array_equal(again.encode(raw), encoder.encode(raw))


def test_the_digest_tells_all_that_features_depend_on() -> None:
    digests = [
        encoder.digest
        for encoder in (
            texts(),
            texts(max_tokens=9),
            texts(pooling="first"),
            texts(sentence_encoder()),
            describe_encoder(token_encoder(), tokenizer(max_length=256), EncoderOptions()),
            images(),
            images(mean=(0.1,)),
            images(flip=True),
            audio(),
            audio(rate=16_000),
            audio(pooling="mean-max"),
        )
    ]
    assert len(set(digests)) == len(digests)
    assert texts().digest == digests[0]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: images(b"not onnx"), "ONNX Runtime refuses the encoder"),
        (lambda: describe_encoder(token_encoder(), b"{}", EncoderOptions()), "the tokenizer can't be read"),
        (lambda: images(token_encoder()), "an image encoder takes float or uint8"),
        (lambda: images(token_encoder(mask=True)), "one input, this has .* text encoders need --tokenizer"),
        (lambda: texts(image_encoder()), "a text encoder takes input_ids"),
        (lambda: texts(token_encoder(("N", 16))), "no more and no less, needs an input attention_mask"),
        (lambda: texts(token_encoder(("N", 16), mask=True), max_tokens=17), "more than the 16"),
        (lambda: texts(max_tokens=0), "at least 1"),
        (lambda: texts(output="logits"), "no output 'logits'; it has: token_embeddings"),
        (lambda: texts(mean=(0.5,)), "mean is for images"),
        (lambda: images(max_tokens=5), "max_tokens is for texts"),
        (lambda: texts(pooling="none"), "several vectors for each example"),
        (lambda: texts(rate=8000), "rate is for audio, and this encoder takes texts"),
        (lambda: audio(rate=None), r"say at which sampling rate in Hz, for example \?rate=16000"),
        (lambda: audio(rate=0), "has a sampling rate in Hz, not 0"),
        (lambda: audio(shape=(1, 8, 8)), "audio of any length, and there is no audio to say which"),
        (lambda: audio(pooling="none"), "several vectors for each example"),
        (lambda: images(pooling="mean"), "is one vector for each example"),
        (lambda: images(image_encoder(maps=True), pooling="thirds"), "three windows of audio or more"),
        (lambda: texts(pooling="thirds"), "three windows of audio or more"),
        (lambda: audio(flip=True), "flip is for images"),
        (lambda: images(std=(0.0,)), "std is never zero"),
        (lambda: images(entangled_encoder()), "depends on the others of its batch"),
    ],
)
def test_what_can_not_be_used_is_refused_with_a_reason(make: Any, why: str) -> None:
    with pytest.raises(EncoderError, match=why):
        make()


def test_images_of_another_shape_are_refused() -> None:
    with pytest.raises(EncoderError, match="takes images of 1x8x8, these are 3x9x9"):
        images().encode(np.zeros((2, 3, 9, 9), np.uint8))
    with pytest.raises(EncoderError, match=r"takes 800 samples at 8000 Hz, these are \[900\]"):
        audio().encode(np.zeros((2, 900), np.float32))


def test_encoders_need_no_pytorch_and_name_their_extra() -> None:
    code = (
        "import sys; sys.modules.update(torch=None, onnxruntime=None)\n"
        "from innerloop_learner.encoders import EncoderOptions, describe_encoder\n"
        "try: describe_encoder(b'', None, EncoderOptions())\n"
        "except ValueError as error: print(error)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ('encoders need ONNX Runtime; pip install "innerloop[encoder]"\n', "")

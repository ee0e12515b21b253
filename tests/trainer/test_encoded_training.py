"""Training behind a frozen encoder: features once, a bundle with everything in it, and mistakes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoders import IMAGE_FEATURES, SIZE, image_encoder, sentence_encoder, token_encoder, tokenizer, write_texts
from shell import innerloop, mistake

from innerloop_learner.bundle import load_bundle
from innerloop_learner.encoders.texts import TextEncoder
from innerloop_learner.learner import methods
from innerloop_learner.manifest import ENCODER, TOKENIZER
from innerloop_trainer.data import EpisodeShape, load_source
from innerloop_trainer.data.encoded import encoded
from innerloop_trainer.encoders import EncoderFiles, load_encoded, read_encoder
from innerloop_trainer.outer_loop import defaults_of

CPU = torch.device("cpu")
QUICK = [
    *("--ways", 2, "--queries", 3, "--iterations", 4, "--meta-batch", 2, "--train-ways", 2, "--device", "cpu"),
    *("--validate-every", 2, "--validation-episodes", 2, "--test-episodes", 25),
]
OFTEN = {"anil", "baseline", "lstm-optimizer", "maml", "protonet", "relation"}
"""Methods that `make test` trains; `make test-slow` trains all others, too."""

NO_LAYERS = ["--backbone", "mlp", "--backbone-set", "widths=[]"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with texts, an encoder of texts with its tokenizer, and an encoder of digits."""
    folder = tmp_path_factory.mktemp("files")
    write_texts(folder / "intents.csv")
    (folder / "texts.onnx").write_bytes(token_encoder())
    (folder / "tokenizer.json").write_bytes(tokenizer())
    (folder / "images.onnx").write_bytes(image_encoder())
    return folder


@pytest.fixture
def text_options(files: Path) -> list[Any]:
    data = f"texts:{files}/intents.csv?val=0.25&test=0.25"
    return ["--data", data, "--encoder", files / "texts.onnx", "--tokenizer", files / "tokenizer.json"]


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def features_on_disk(cache_home: Path) -> set[str]:
    return {file.name for file in cache_home.rglob("features-*")}


def test_a_run_leaves_a_bundle_that_carries_its_encoder(text_options: list[Any], files: Path, tmp_path: Path) -> None:
    answer = innerloop("train", "protonet", *text_options, *QUICK, "--out", tmp_path / "run")
    assert answer.status == 0, answer
    bundle = load_bundle(tmp_path / "run" / "bundle")
    encoder = bundle.manifest.encoder
    assert encoder is not None
    assert (encoder.input, encoder.features, encoder.pooling, encoder.normalise) == ("texts", SIZE, "mean", True)
    assert (bundle.learner.spec.input.shape, bundle.learner.spec.input.dtype) == ((SIZE,), "float32")
    assert bundle.learner.spec.backbone == "adapter"
    assert bundle.files == {
        ENCODER: (files / "texts.onnx").read_bytes(),
        TOKENIZER: (files / "tokenizer.json").read_bytes(),
    }
    test = bundle.manifest.metrics[-1]
    evaluated = innerloop("evaluate", tmp_path / "run", *text_options[:2], "--queries", 3, "--episodes", 25)
    assert f"accuracy {test.value:.2%} ± {test.confidence_interval:.2%}" in evaluated.output
    shown = innerloop("inspect", tmp_path / "run").output
    assert "texts of up to 256 tokens" in shown
    assert f"{SIZE} features of a frozen encoder" in shown
    exported = innerloop("export", tmp_path / "run", "--out", tmp_path / "models" / "intents")
    assert exported.status == 0, exported
    assert load_bundle(tmp_path / "models" / "intents").files == bundle.files


def test_images_are_encoded_too(files: Path, tmp_path: Path) -> None:
    encoder = f"{files}/images.onnx?mean=0.5&std=0.25&normalise=false"
    answer = innerloop(
        "train", "anil", "--data", "digits", "--encoder", encoder, *QUICK[:8], *QUICK[10:], "--out", tmp_path / "run"
    )
    assert answer.status == 0, answer
    spec = load_bundle(tmp_path / "run" / "bundle").manifest.encoder
    assert spec is not None
    assert (spec.features, spec.shape, spec.mean, spec.std) == (IMAGE_FEATURES, (1, 8, 8), (0.5,), (0.25,))
    assert not spec.normalise


def test_an_episode_holds_the_features_of_the_very_texts(files: Path) -> None:
    plain = load_source(f"texts:{files}/intents.csv")
    encoder = read_encoder(str(files / "texts.onnx"), files / "tokenizer.json")
    source = load_encoded(f"texts:{files}/intents.csv", CPU, encoder)
    assert source.encoder is not None
    shape = EpisodeShape(2, 2, 2)
    raw = plain.train.sample_raw(shape, 3, torch.Generator().manual_seed(0))  # type: ignore[attr-defined]
    drawn = source.train.sample(shape, 3, torch.Generator().manual_seed(0))
    for given, features in ((raw.support, drawn.support.x), (raw.query, drawn.query.x)):
        expected = source.encoder.encode(given.flatten(0, 1).numpy())
        np.testing.assert_allclose(features.flatten(0, 1).numpy(), expected, atol=1e-6)


def test_features_are_computed_once(files: Path, cache_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = load_source(f"texts:{files}/intents.csv")
    file = EncoderFiles(token_encoder(), tokenizer(), read_encoder(str(files / "texts.onnx")).options)
    first = load_encoded(f"texts:{files}/intents.csv", CPU, file)
    known = features_on_disk(cache_home)
    assert len(known) == 3
    assert first.encoder is not None

    def fail(*_: Any) -> Any:
        raise AssertionError("encoded again")

    monkeypatch.setattr(TextEncoder, "encode", fail)
    again = encoded(plain, first.encoder)
    draw = [
        source.train.sample(EpisodeShape(2, 1, 1), 2, torch.Generator().manual_seed(0)) for source in (first, again)
    ]
    assert torch.equal(draw[0].support.x, draw[1].support.x)


def test_another_encoder_or_other_texts_are_encoded_anew(files: Path, tmp_path: Path, cache_home: Path) -> None:
    def features(graph: bytes, data: str, options: str = "") -> int:
        (tmp_path / "model.onnx").write_bytes(graph)
        given = read_encoder(f"{tmp_path}/model.onnx{options}", files / "tokenizer.json")
        load_encoded(data, CPU, given)
        return len(features_on_disk(cache_home))

    data = f"texts:{files}/intents.csv"
    assert features(token_encoder(), data) == 3
    assert features(token_encoder(), data) == 3
    assert features(token_encoder(), data, "?max_tokens=3") == 6
    assert features(sentence_encoder(), data) == 9
    assert features(token_encoder(), f"texts:{write_texts(tmp_path / 'more.csv', texts=13)}") == 12


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=() if name in OFTEN else pytest.mark.slow) for name in methods]
)
def test_every_method_learns_behind_an_encoder(method: str, text_options: list[Any], tmp_path: Path) -> None:
    many = methods[method].info.ways_can_change == "any"
    options = [*(QUICK[:8] if not many else QUICK[:10]), *QUICK[10:]]
    if defaults_of(method).unlabelled:  # features are not augmented, so labels say what is alike
        options.append("--no-unlabelled")
    answer = innerloop("train", method, *text_options, *options, "--out", tmp_path / "run")
    assert answer.status == 0, answer


def test_methods_are_compared_behind_one_encoder(text_options: list[Any], tmp_path: Path) -> None:
    options = ["--ways", 2, "--queries", 3, "--iterations", 2, "--test-episodes", 25, "--device", "cpu"]
    answer = innerloop(
        "compare", "--methods", "protonet,knn", *text_options, *options, "--out", tmp_path / "comparison"
    )
    assert answer.status == 0, answer
    result = json.loads((tmp_path / "comparison" / "comparison.json").read_text())
    assert {entry["method"] for entry in result["compared"]} == {"protonet", "knn"}


def test_a_run_goes_on_with_its_own_encoder_only(text_options: list[Any], files: Path, tmp_path: Path) -> None:
    train = ["train", "protonet", *text_options, *QUICK, "--out", tmp_path / "run"]
    assert innerloop(*train).status == 0
    assert innerloop(*train, "--resume").status == 0
    train[5] = f"{files}/texts.onnx?pooling=first"
    assert "holds a run with other settings: --encoder is sha256:" in mistake(*train, "--resume")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--data", "texts:{files}/intents.csv"], "texts, which methods don't read; name an encoder of texts"),
        (["--data", "digits", "--encoder", "{files}/absent.onnx"], "absent.onnx can't be read (No such file"),
        (["--data", "digits", "--tokenizer", "{files}/tokenizer.json"], "--tokenizer belongs to an encoder"),
        (
            ["--data", "digits", "--encoder", "{files}/texts.onnx", "--tokenizer", "{files}/tokenizer.json"],
            "this encoder takes texts, digits has images",
        ),
        (
            ["--data", "texts:{files}/intents.csv", "--encoder", "{files}/images.onnx?colour=8"],
            "unknown option 'colour'",
        ),
        (["--data", "sinusoid", "--encoder", "{files}/images.onnx"], "this encoder takes images, sinusoid has numbers"),
        (["--data", "digits", "--encoder", "{files}/images.onnx?mean=dark"], "mean=dark is not understood"),
        (["--data", "digits", "--encoder", "{files}/images.onnx?pooling=max"], "none, mean, first"),
        (["--data", "digits", "--encoder", "{files}/images.onnx", "--backbone", "conv4"], "conv4 takes images"),
        (
            ["--data", "digits", "--encoder", "{files}/images.onnx", *NO_LAYERS],
            "protonet learns nothing on a backbone without layers",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(options: list[str], why: str, files: Path, tmp_path: Path) -> None:
    given = [option.format(files=files) for option in options]
    assert why in mistake("train", "protonet", *given, *QUICK, "--out", tmp_path / "run")


def test_a_model_without_an_encoder_is_not_measured_on_texts(files: Path, tmp_path: Path) -> None:
    digits = [*("train", "protonet", "--data", "digits"), *QUICK, "--out", tmp_path / "run"]
    assert innerloop(*digits).status == 0
    refusal = mistake("evaluate", tmp_path / "run", "--data", f"texts:{files}/intents.csv")
    assert "has texts, and this model has no encoder of texts" in refusal


def test_noise_is_refused_behind_an_encoder(text_options: list[Any], tmp_path: Path) -> None:
    noise = ["--backbone", "mlp", "--backbone-set", "noise=meta_dropout"]
    refusal = mistake("train", "maml", *text_options, *QUICK, *noise, "--out", tmp_path / "run")
    assert "leave --backbone-set noise out, or --encoder" in refusal


def test_a_teacher_stands_behind_the_encoder_of_its_student(
    text_options: list[Any], files: Path, tmp_path: Path
) -> None:
    first = ["train", "r2d2", *text_options, *QUICK, "--out"]
    assert innerloop(*first, tmp_path / "teacher").status == 0
    assert innerloop(*first, tmp_path / "student", "--teacher", tmp_path / "teacher").status == 0
    (files / "other.onnx").write_bytes(sentence_encoder())
    other = ["--data", text_options[1], "--encoder", files / "other.onnx", "--tokenizer", files / "tokenizer.json"]
    for options in (other, ["--data", "digits"]):
        message = mistake(
            "train", "r2d2", *options, *QUICK, "--out", tmp_path / "run", "--teacher", tmp_path / "teacher"
        )
        assert "its encoder is not that of this run; choose another teacher, or its --encoder" in message

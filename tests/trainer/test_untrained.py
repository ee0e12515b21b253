"""Bundles without training: made at once, honest about it, and evaluated on all classes."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from encoders import IMAGE_FEATURES, image_encoder, token_encoder, tokenizer
from PIL import Image
from shell import innerloop, mistake

from innerloop_learner.bundle import load_bundle, save_bundle
from innerloop_learner.encoders import EncoderOptions
from innerloop_trainer.data import DataError, load_source
from innerloop_trainer.encoders import EncoderFiles, load_encoded

COLOURS = {"blue": (0, 0, 200), "green": (0, 200, 0), "red": (200, 0, 0), "white": (220, 220, 220)}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Class folders of 20 x 20 pictures, of a colour each."""
    random = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(6):
            pixels = np.clip(random.integers(-30, 30, (20, 20, 3)) + colour, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{index}.png")
    return tmp_path / "photos"


@pytest.fixture
def encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An encoder of colour images of 12 x 12."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "colours.onnx").write_bytes(image_encoder((1, 3, 12, 12)))
    return tmp_path / "colours.onnx"


def test_a_new_bundle_says_that_nothing_was_trained_and_carries_its_encoder(encoder: Path, tmp_path: Path) -> None:
    made = innerloop("new", "paint", "--encoder", encoder, "--out", tmp_path / "models" / "paint", "--max-ways", 9)
    assert made.status == 0, made
    bundle = load_bundle(tmp_path / "models" / "paint")
    manifest = bundle.manifest
    assert (manifest.name, manifest.learner.method, manifest.limits.max_ways) == ("paint", "lr-d2", 9)
    assert (manifest.limits.trained_ways, manifest.provenance.meta_trained) == (0, False)
    assert manifest.learner.settings["scale"] == 4, "softer than training starts, since nothing will soften it"
    assert manifest.encoder is not None
    assert manifest.encoder.origin is not None
    assert manifest.encoder.origin.name == "colours"
    assert sum(value.numel() for value in bundle.params.values()) == 4
    shown = innerloop("inspect", tmp_path / "models" / "paint").output
    assert "none: nothing was meta-trained" in shown
    assert "colours" in shown
    assert "trained for" not in shown


def test_all_classes_are_unseen_where_nothing_was_trained(encoder: Path, photos: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "models" / "paint"
    innerloop("new", "paint", "--encoder", encoder, "--head", "protonet", "--out", bundle)
    sizes = ("--ways", 4, "--queries", 5, "--episodes", 4, "--device", "cpu")
    answer = innerloop("evaluate", bundle, "--data", f"images:{photos}", *sizes)
    assert answer.status == 0, answer
    assert "4-way 1-shot, 4 all-class episodes" in " ".join(answer.output.split())
    assert "does not say what it was trained on" not in answer.output
    assert "1 classes, too few for 4 ways" in mistake(
        "evaluate", bundle, "--data", f"images:{photos}", *sizes, "--split", "test"
    )
    with pytest.raises(DataError, match="no classes to join"):
        load_source("sinusoid").train.joined()


def test_two_classes_are_enough_where_nothing_was_trained(encoder: Path, photos: Path, tmp_path: Path) -> None:
    for name in ("red", "white"):
        shutil.rmtree(photos / name)
    bundle = tmp_path / "models" / "paint"
    innerloop("new", "paint", "--encoder", encoder, "--out", bundle)
    sizes = ("--ways", 2, "--queries", 5, "--episodes", 4, "--device", "cpu")
    answer = innerloop("evaluate", bundle, "--data", f"images:{photos}", *sizes)
    assert answer.status == 0, answer
    assert "2-way 1-shot, 4 all-class episodes" in " ".join(answer.output.split())
    refused = mistake("train", "protonet", "--data", f"images:{photos}", "--out", tmp_path / "run", "--ways", 2)
    assert "training split has no classes" in refused


def test_a_bundle_that_was_meta_trained_is_kept(encoder: Path, tmp_path: Path) -> None:
    path = tmp_path / "models" / "paint"
    innerloop("new", "paint", "--encoder", encoder, "--out", path)
    made = load_bundle(path)
    trained = replace(made.manifest, provenance=replace(made.manifest.provenance, data="images:paint", iterations=9))
    digest = save_bundle(path, trained, made.params, made.files).digest
    assert "holds a bundle that was meta-trained" in mistake("new", "paint", "--encoder", encoder, "--out", path)
    assert load_bundle(path).manifest.digest == digest


def test_heads_that_training_must_find_are_refused(encoder: Path, tmp_path: Path) -> None:
    error = mistake("new", "paint", "--encoder", encoder, "--head", "snail", "--out", tmp_path / "paint")
    assert error.startswith("snail answers by parameters that training must find")
    assert error.endswith("knn, lr-d2, matching, nearest-centroid, oml, protonet, r2d2, simclr")
    assert not (tmp_path / "paint").exists()


def test_encoders_of_any_size_need_one_to_be_named(tmp_path: Path) -> None:
    (tmp_path / "free.onnx").write_bytes(image_encoder(("N", 3, "height", "width")))
    error = mistake("new", "paint", "--encoder", tmp_path / "free.onnx", "--out", tmp_path / "paint")
    assert "images of any size" in error


def test_data_is_brought_to_the_size_and_colours_of_the_encoder(photos: Path) -> None:
    options = EncoderOptions(shape=(3, 12, 12))
    files = EncoderFiles(image_encoder(("N", 3, "height", "width")), None, options)
    source = load_encoded(f"images:{photos}", torch.device("cpu"), files)
    assert source.input.shape == (IMAGE_FEATURES,)
    assert (source.options["size"], source.options["color"]) == ("12", "rgb")
    texts = EncoderFiles(token_encoder(), tokenizer(), EncoderOptions())
    with pytest.raises(ValueError, match="this encoder takes texts"):
        load_encoded(f"images:{photos}", torch.device("cpu"), texts)


def test_classes_can_be_divided_in_the_order_of_their_names(photos: Path) -> None:
    source = load_source(f"images:{photos}?order=name&val=0.25&test=0.25")
    assert [list(split.names) for split in (source.train, source.validation, source.test)] == [
        ["blue", "green"],
        ["red"],
        ["white"],
    ]
    assert "split by name" in source.description

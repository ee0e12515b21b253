"""Encoders in repositories, tried on local folders that are laid out like one."""

import json
from pathlib import Path

import pytest
from encoders import audio_encoder, image_encoder, token_encoder, tokenizer

from innerloop_learner.encoders.session import Computing
from innerloop_trainer.config import ConfigError
from innerloop_trainer.encoders import open_files, read_encoder


def write(folder: Path, graph: bytes, path: str = "onnx/model.onnx", **files: object) -> Path:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(graph)
    for name, content in files.items():
        text = content.decode() if isinstance(content, bytes) else json.dumps(content)
        (folder / f"{name}.json").write_text(text)
    return folder


PHOTOS = {
    "do_normalize": True,
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.2, 0.25, 0.3],
    "rescale_factor": 1 / 255,
    "size": {"height": 12, "width": 14},
}


def test_images_are_prepared_as_the_repository_says(tmp_path: Path) -> None:
    graph = image_encoder(("N", 3, "height", "width"))
    spec = open_files(read_encoder(f"hf:{write(tmp_path, graph, preprocessor_config=PHOTOS)}"), Computing(1)).spec
    assert (spec.shape, spec.mean, spec.std) == ((3, 12, 14), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    assert spec.scale == pytest.approx(1 / 255)
    assert spec.origin is not None
    assert spec.origin.name == tmp_path.name


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ({"size": 10}, (3, 10, 10)),
        ({"size": {"shortest_edge": 16}, "crop_size": {"height": 8, "width": 8}, "do_center_crop": True}, (3, 8, 8)),
        ({"size": {"shortest_edge": 16}}, (3, 16, 16)),
    ],
)
def test_sizes_are_read_in_every_form(size: dict[str, object], expected: tuple[int, ...], tmp_path: Path) -> None:
    folder = write(tmp_path, b"", preprocessor_config={**PHOTOS, "size": None, **size})
    assert read_encoder(f"hf:{folder}").options.shape == expected


def test_texts_come_with_their_tokenizer(tmp_path: Path) -> None:
    folder = write(tmp_path, token_encoder(mask=True), "model.onnx", tokenizer=json.loads(tokenizer()))
    spec = open_files(read_encoder(f"hf:{folder}?max_tokens=9"), Computing(1)).spec
    assert (spec.input, spec.pooling, spec.max_tokens) == ("texts", "mean", 9)
    write(tmp_path / "1_Pooling", b"", config={"pooling_mode_cls_token": True})
    assert read_encoder(f"hf:{folder}").options.pooling == "first"


def test_recordings_come_with_their_rate(tmp_path: Path) -> None:
    folder = write(tmp_path, audio_encoder(("N", 800)), "model.onnx", preprocessor_config={"sampling_rate": 8000})
    spec = open_files(read_encoder(f"hf:{folder}"), Computing(1)).spec
    assert (spec.input, spec.rate, spec.shape) == ("audio", 8000, (800,))


def test_one_of_several_graphs_can_be_named(tmp_path: Path) -> None:
    write(tmp_path, b"one")
    write(tmp_path, b"two", "onnx/small.onnx", preprocessor_config=PHOTOS)
    files = read_encoder(f"hf:{tmp_path}/onnx/small.onnx")
    assert (files.graph, files.options.shape) == (b"two", (3, 12, 14))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("hf:nobody", "hf:nobody is neither OWNER/REPO nor a folder"),
        ("hf:./missing/folder", "neither OWNER/REPO nor a folder that exists"),
        ("hf:inno..valid/a--b", "can't be had from Hugging Face"),
        ("hf:innerloop-tests/absent", "Hugging Face can't be reached"),
    ],
)
def test_repositories_that_can_not_be_had_say_why(text: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=why):
        read_encoder(text)


def test_a_repository_without_a_graph_says_how_to_name_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no onnx/model.onnx or model.onnx; name its ONNX file as hf:"):
        read_encoder(f"hf:{tmp_path}")

"""The demo on a user's own photographs, texts and recordings."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import typer
from forks import ServerProcess
from PIL import Image
from typer.testing import CliRunner

from innerloop_command.app import app
from innerloop_command.demo import own_files
from innerloop_command.demo.own_files import ENCODERS, MOST_CLASSES, MOST_QUERIES, MOST_SHOTS, OwnTask, divide
from innerloop_trainer.encoders import encoders

COLOURS = {"red": (200, 30, 30), "green": (30, 160, 40), "blue": (30, 40, 200)}
SENTENCES = {
    "card": ["I lost my card", "my card was stolen", "block my card", "where is my new card", "the card is gone"],
    "weather": ["is it raining", "how warm is it today", "will it snow", "is the sun out", "what is the forecast"],
}


def photos(folder: Path) -> Path:
    random = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for index in range(5):
            pixels = np.clip(random.normal(colour, 20, (40, 60, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.jpg")
    return folder


def texts(folder: Path) -> Path:
    folder.mkdir()
    rows = [f"{text},{label}" for label, of_label in SENTENCES.items() for text in of_label]
    (folder / "own.csv").write_text("\n".join(["text,label", *rows]))
    return folder / "own.csv"


def audio(folder: Path) -> Path:
    soundfile = pytest.importorskip("soundfile")
    random, times = np.random.default_rng(0), np.arange(8000) / 8000
    for name, hertz in {"low": 200, "high": 1500}.items():
        (folder / name).mkdir(parents=True)
        for index in range(5):
            wave = 0.4 * np.sin(2 * np.pi * hertz * times) + random.normal(0, 0.02, 8000)
            soundfile.write(folder / name / f"{index}.wav", wave, 8000)
    return folder


MAKE = {"photos": photos, "texts": texts, "audio": audio}


@pytest.mark.parametrize(
    "kind", ["photos", pytest.param("texts", marks=pytest.mark.slow), pytest.param("audio", marks=pytest.mark.slow)]
)
def test_it_learns_from_a_few_of_the_users_examples(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_files, "ServerProcess", ServerProcess)
    encoder = encoders[ENCODERS[kind]]()
    if not encoder.at_hand:
        pytest.skip(encoder.install)
    out, figures = tmp_path / "demo", tmp_path / "figures.json"
    own = MAKE[kind](tmp_path / "own")
    result = CliRunner().invoke(app, ["demo", f"--{kind}", str(own), "--out", str(out), "--json", str(figures)])
    assert result.exit_code == 0, result.output
    measured = json.loads(figures.read_text())
    assert measured["accuracy"]["2"] > 0.9
    rows = list(csv.DictReader((out / "answers.csv").read_text().splitlines()))
    assert len(rows) == measured["queries"]
    assert np.mean([row["answer"] == row["label"] for row in rows]) == measured["accuracy"]["2"]
    assert (out / "demo.png").exists() == (kind != "texts")
    again = CliRunner().invoke(app, ["demo", "--photos", str(tmp_path / "absent"), "--out", str(out)])
    assert "there is no file or folder" in again.output
    assert (out / "answers.csv").exists()


def test_a_task_has_no_more_than_can_be_looked_at_and_asks_about_nothing_it_has_shown() -> None:
    examples = {f"class {number}": list(map(str, range(number, number + 40))) for number in range(20)}
    task = divide(examples, Path("own"))
    assert (len(task.classes), task.shots) == (MOST_CLASSES, MOST_SHOTS)
    assert len(task.query) == MOST_CLASSES * MOST_QUERIES
    shown = set(zip(task.support_labels, task.support, strict=True))
    assert not shown & set(zip(task.query_labels, task.query, strict=True))
    fewer = task.with_shots(1)
    assert fewer.support_labels == task.classes
    assert set(zip(fewer.support_labels, fewer.support, strict=True)) < shown


def test_the_smallest_class_says_how_many_examples_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    task = divide({"a": ["1", "2", "3", "4"], "b": ["5", "6", "7", "8", "9"], "c": ["10"]}, Path("own"))
    assert task == OwnTask(task.support, ["a", "a", "b", "b"], task.query, ["a", "a", "b", "b", "b"], 2)
    assert "only one example of each: c" in capsys.readouterr().err
    with pytest.raises(typer.BadParameter, match="two classes or more"):
        divide({"a": ["1", "2"], "b": ["3"]}, Path("own"))


def test_it_takes_one_kind_at_a_time(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["demo", "--photos", str(tmp_path), "--audio", str(tmp_path)])
    assert result.exit_code == 2
    assert "one of --photos and --audio at a time" in result.output

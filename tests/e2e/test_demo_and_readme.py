"""The main job as a newcomer does it: the demo, then the README's example on what the demo left."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from forks import ServerProcess
from typer.testing import CliRunner

from innerloop_command.app import app
from innerloop_command.demo import command
from innerloop_command.demo.folder import RECORD
from innerloop_learner.bundle import load_bundle
from innerloop_learner.zoo import zoo_folder

ROOT = Path(__file__).resolve().parents[2]
ITERATIONS = 60
"""Enough to be far above chance; `make demo` takes more."""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the demo was run."""
    folder = tmp_path_factory.mktemp("workplace")
    arguments = ["demo", "--iterations", str(ITERATIONS), "--json", "figures.json"]
    subprocess.run([sys.executable, "-m", "innerloop_command", *arguments], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def figures(workplace: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((workplace / "figures.json").read_text())
    return content


def test_the_demo_learns_from_one_example_each(figures: dict[str, Any]) -> None:
    assert figures["accuracy_before"] < 0.35
    assert figures["accuracy_after"] > 0.5


def test_the_demo_reports_all_its_figures(figures: dict[str, Any]) -> None:
    assert set(figures) == {
        "accuracy_before",
        "accuracy_after",
        "adapt_p50_ms",
        "predict_p50_ms",
        "train_seconds",
        "picture",
    }
    assert figures["adapt_p50_ms"] > 0
    assert figures["predict_p50_ms"] > 0
    assert Path(figures["picture"]).read_bytes().startswith(b"\x89PNG")


def test_the_readme_example_works_as_pasted(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(workplace)
    with ServerProcess(Path("innerloop-demo/models")) as server:
        assert "localhost:50051" in example
        exec(example.replace("localhost:50051", server.target), {})
    lines = capsys.readouterr().out.splitlines()
    answers = [re.fullmatch(r"(\S+) -> (\S+) \d+%", line) for line in lines]
    assert len(answers) == 25
    right = sum(answer is not None and answer[1] == answer[2] for answer in answers)
    assert right > 10


@pytest.mark.parametrize(
    ("data", "reason"),
    [("sinusoid", "images to look at"), ("digits", "2 classes"), ("nowhere", "unknown data source")],
)
def test_the_demo_says_what_it_needs(data: str, reason: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["demo", "--data", data, "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert reason in unboxed(result.stderr)


def test_the_demo_finds_out_first_whether_its_figures_can_be_written(tmp_path: Path) -> None:
    notes = tmp_path / "notes.json"
    notes.write_text('{"mine": 1}')
    for file, reason in ((notes, "something else"), (tmp_path / "none" / "figures.json", "there is no folder")):
        result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "demo"), "--json", str(file)])
        assert result.exit_code == 2
        assert reason in unboxed(result.stderr)
    assert notes.read_text() == '{"mine": 1}'
    assert list(tmp_path.iterdir()) == [notes]


def test_the_demo_starts_from_a_model_that_comes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "EPISODES", 4)
    monkeypatch.setattr(command, "ServerProcess", ServerProcess)
    file = tmp_path / "figures.json"
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "demo"), "--json", str(file)])
    assert result.exit_code == 0, result.output
    assert "Starts from glyphs, a model that comes with Innerloop" in result.output
    assert "innerloop demo --train" in result.output
    figures = json.loads(file.read_text())
    assert figures["accuracy_after"] > 0.85
    assert (figures["accuracy_before"], figures["train_seconds"]) == (None, None)
    assert (
        load_bundle(tmp_path / "demo/models/demo").manifest.provenance
        == load_bundle(zoo_folder() / command.ZOO_MODEL).manifest.provenance
    )


def unboxed(message: str) -> str:
    """What stands in the box in which wrong usage is told."""
    return " ".join(message.replace("│", " ").split())


def contents(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.slow
def test_the_demo_can_be_run_again_beside_what_others_put_there(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "EPISODES", 2)
    own = shutil.copytree(workplace / "innerloop-demo", tmp_path / "own")
    beside = [own / "notes.txt", own / "models" / "mine" / "notes.txt"]
    for file in beside:
        file.parent.mkdir(exist_ok=True)
        file.write_text("mine")
    before = contents(own)
    result = CliRunner().invoke(app, ["demo", "--out", str(own), "--iterations", "1"])
    assert result.exit_code == 0, result.output
    assert [file.read_text() for file in beside] == ["mine", "mine"]
    assert contents(own)[own / "models/demo/manifest.json"] != before[own / "models/demo/manifest.json"]


@pytest.mark.parametrize("case", ["another run", "a changed file", "a new file"])
def test_the_demo_replaces_nothing_that_it_did_not_write(workplace: Path, tmp_path: Path, case: str) -> None:
    own = shutil.copytree(workplace / "innerloop-demo", tmp_path / "own")
    if case == "another run":
        (own / RECORD).unlink()
    else:
        (own / "run" / ("config.json" if case == "a changed file" else "notes.txt")).write_text("mine")
    before = contents(own)
    result = CliRunner().invoke(app, ["demo", "--out", str(own), "--iterations", "1"])
    assert result.exit_code == 2
    assert re.search("name (another|a) folder", unboxed(result.stderr))
    assert contents(own) == before

"""Recipes that state their figures, and `innerloop reproduce`, which compares them with what is reached."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from shell import innerloop, mistake

from innerloop_learner.manifest import Metric
from innerloop_trainer.recipes import make_recipe, read_recipe
from innerloop_trainer.recipes.expected import Expected, Repeated, expected_figures

RECIPES = Path(__file__).resolve().parents[2] / "recipes"

SMALL = """# A comment that stays.
method = "protonet"
data = "digits"
ways = 2
queries = 3
iterations = 2
validate_every = 2
validation_episodes = 2
test_episodes = 2
calibration_episodes = 0
train_ways = 2
backbone_set = { width = 4 }

[[expected]]
episodes = 20  # tasks
tolerance = 0.05

[[expected]]
shots = 3
episodes = 10
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe whose figures were recorded."""
    recipe = tmp_path_factory.mktemp("recipes") / "small.toml"
    recipe.write_text(SMALL)
    answer = innerloop("reproduce", recipe, "--out", recipe.parent / "run", "--record")
    assert answer.status == 0, answer
    assert "Written to" in answer.output
    return recipe


def test_recording_fills_in_figures_and_changes_nothing_else(recorded: Path) -> None:
    text = recorded.read_text()
    assert re.sub(r"(value|confidence_interval) = [\d.]+\n", "", text).strip() == SMALL.strip()
    one, three = tomllib.loads(text)["expected"]
    assert 0.4 < one["value"] < 1
    assert 0 < three["confidence_interval"] < 0.3


def test_what_is_reached_again_is_reproduced(recorded: Path, tmp_path: Path) -> None:
    answer = innerloop("reproduce", recorded, "--out", tmp_path / "run", "--json", tmp_path / "figures.json")
    assert (answer.status, answer.output.splitlines()[-1]) == (0, "reproduced")
    results = json.loads((tmp_path / "figures.json").read_text())
    assert results["recipe"] == "small.toml"
    for each, shots in zip(results["figures"], (1, 3), strict=True):
        assert each["reproduced"]
        assert each["measured"]["value"] == pytest.approx(each["expected"]["value"], abs=1e-6)
        assert f"2-way {shots}-shot" in each["measured"]["protocol"]
    assert answer.output.count("±") == 6, "both intervals of both figures, and those of validation and final test"


def test_other_figures_are_not_reproduced(recorded: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    value = tomllib.loads(recorded.read_text())["expected"][0]["value"]
    other.write_text(recorded.read_text().replace(f"value = {value}", f"value = {value - 0.06:.6f}", 1))
    answer = innerloop("reproduce", other, "--out", recorded.parent / "run", "--resume")
    assert (answer.status, answer.output.splitlines()[-1]) == (1, "not reproduced")


def test_the_run_goes_below_runs_unless_told_otherwise(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert innerloop("reproduce", recorded).status == 0
    assert (tmp_path / "runs" / "small" / "bundle").is_dir()


def test_data_may_lie_elsewhere(recorded: Path, tmp_path: Path) -> None:
    message = mistake("reproduce", recorded, "--data", "omniglot:/nowhere", "--out", tmp_path / "run")
    assert "/nowhere does not exist" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expects no figure; say below [[expected]] what is measured"),
        ("[[expected]]\nways = 2\n", "has no value and confidence_interval yet; measure them with --record"),
        ("[[expected]]\nway = 2\n", "has no setting 'way'; did you mean ways?"),
        ("[[expected]]\nvalue = 0.5\nconfidence_interval = 'x'\n", "confidence_interval must be a number, not 'x'"),
        ("[[expected]]\nvalue = 1\nconfidence_interval = 0\nprotocol = 'x'\n", "must be inductive or transductive"),
    ],
)
def test_figures_that_make_no_sense_are_told_before_training(text: str, message: str, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('method = "protonet"\ndata = "digits"\n' + text)
    assert message in mistake("reproduce", recipe, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("measured", "reproduced"), [(0.92, True), (0.91, True), (0.909, False), (0.94, False)])
def test_a_figure_is_reproduced_within_its_tolerance(measured: float, reproduced: bool) -> None:
    expected = Expected(value=0.92, confidence_interval=0.001, tolerance=0.0101)
    metric = Metric("accuracy", measured, 0.5, "inductive")
    assert Repeated(expected, metric).reproduced == reproduced


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_of_the_repository_can_be_read(path: Path) -> None:
    recipe = read_recipe(path)
    make_recipe(recipe.settings)
    assert expected_figures(recipe, known=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["glyphs-protonet", "glyphs-maml"])
def test_small_recipes_reach_their_figures(name: str, tmp_path: Path) -> None:
    answer = innerloop("reproduce", RECIPES / f"{name}.toml", "--out", tmp_path / "run", "--device", "cpu")
    assert answer.status == 0, answer

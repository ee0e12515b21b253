"""Model cards: data, figures, limits, licence and recipe of a bundle, as people and Hugging Face read them."""

from pathlib import Path

import pytest
import yaml
from runs import DIGITS, SINUSOID, train
from shell import innerloop, mistake

from innerloop_learner.bundle import load_bundle

RECIPE = """method = "maml"
data = "omniglot:/home/me/omniglot?split=alphabet"
ways = 2

[[expected]]
ways = 2
shots = 1
episodes = 1000
value = 0.912345
confidence_interval = 0.0051

[[expected]]
ways = 3

[card]
licence = "apache-2.0"
data = "Digits of a museum, in the public domain."
use = "Digits that nobody wrote before."
limits = "It knows no letters."
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of MAML on digits."""
    return train(DIGITS, tmp_path_factory.mktemp("runs") / "run").path


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "digits.toml"
    path.write_text(RECIPE)
    return path


def written(run: Path, *options: object) -> str:
    answer = innerloop("card", run, *options)
    assert answer.status == 0, answer
    return (run / "bundle" / "README.md").read_text()


def test_a_card_tells_data_figures_limits_licence_and_recipe(run: Path, recipe: Path) -> None:
    text = written(run, "--recipe", recipe)
    for part in (
        "# digits-maml",
        "Digits of a museum, in the public domain.",
        "Digits that nobody wrote before.",
        "| inductive, 2-way 1-shot, 1000 test episodes | 91.23% ± 0.51% |",
        "It takes up to 2 classes and 20 inner steps in a task. How sure its answers are was not calibrated.",
        "calibrated. It knows no letters.",
        "`innerloop reproduce digits.toml`",
        'data = "omniglot:PATH?split=alphabet"',
    ):
        assert part in text
    assert "/home/me" not in text
    assert load_bundle(run / "bundle").manifest.version in text


def test_the_head_of_a_card_is_what_hugging_face_reads(run: Path, recipe: Path) -> None:
    _, head, _ = written(run, "--recipe", recipe).split("---\n", 2)
    data = yaml.safe_load(head)
    assert (data["license"], data["library_name"]) == ("apache-2.0", "innerloop")
    assert data["tags"] == ["few-shot-learning", "meta-learning", "maml"]
    [model] = data["model-index"]
    [result] = model["results"]
    [metric] = result["metrics"]
    assert (model["name"], metric["type"], metric["value"]) == ("digits-maml", "accuracy", 0.912345)
    assert result["dataset"]["type"] == "digits"


def test_a_card_without_a_recipe_shows_the_figures_of_the_bundle(tmp_path: Path) -> None:
    run = train(SINUSOID, tmp_path / "run").path
    text = written(run)
    assert "None were measured." in text
    assert yaml.safe_load(text.split("---\n", 2)[1])["license"] == "unknown"


def test_a_card_replaces_a_card_and_nothing_else(run: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes.md"
    notes.write_text("mine")
    assert "is there and no model card; move it away" in mistake("card", run, "--out", notes)
    assert notes.read_text() == "mine"
    assert innerloop("card", run, "--out", tmp_path / "card.md").status == 0
    assert innerloop("card", run, "--out", tmp_path / "card.md").status == 0


def test_a_bundle_with_a_card_is_the_same_bundle(run: Path) -> None:
    before = load_bundle(run / "bundle").manifest.digest
    written(run)
    assert load_bundle(run / "bundle").manifest.digest == before


def test_texts_that_no_card_has_are_named(run: Path, recipe: Path) -> None:
    recipe.write_text(RECIPE.replace("licence =", "license ="))
    assert "has no setting 'license'; did you mean licence?" in mistake("card", run, "--recipe", recipe)

"""The zoo: small bundles with cards, each made by a recipe of the repository."""

from pathlib import Path

import pytest

from innerloop_learner.bundle import load_bundle
from innerloop_learner.zoo import zoo_folder
from innerloop_trainer.config import TrainingConfig
from innerloop_trainer.model_card import CARD_FILE, make_card
from innerloop_trainer.recipes import make_recipe, read_recipe
from innerloop_trainer.recipes.expected import expected_figures

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
MODELS = sorted(path for path in zoo_folder().iterdir() if path.is_dir())
LARGEST = 2 * 2**20


def test_there_is_a_model_of_symbols_for_the_demo() -> None:
    assert zoo_folder() / "glyphs" in MODELS


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.name)
def test_a_model_of_the_zoo_is_small_named_after_its_folder_and_made_by_its_recipe(path: Path) -> None:
    assert sum(file.stat().st_size for file in path.rglob("*")) <= LARGEST
    manifest = load_bundle(path).manifest
    assert manifest.name == path.name
    assert manifest.calibration is not None
    recipe = make_recipe(read_recipe(RECIPES / f"{path.name}.toml").settings).training
    made_with = manifest.provenance.training
    for name, value in recipe.to_json().items():
        if name == "backbone_settings":
            assert made_with[name].items() >= value.items()
        elif value is not None and name != "data":
            later = getattr(TrainingConfig, name, None)  # a setting that came after the model was made
            assert made_with.get(name, later) == value, name


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.name)
def test_the_card_of_a_model_is_what_the_command_writes(path: Path) -> None:
    recipe = read_recipe(RECIPES / f"{path.name}.toml")
    assert expected_figures(recipe, known=True)
    assert (path / CARD_FILE).read_text() == make_card(load_bundle(path), recipe)
    assert recipe.card.keys() == {"licence", "data", "use", "limits"}

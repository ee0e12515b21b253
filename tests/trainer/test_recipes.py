"""Recipes: files of TOML that make the same run again, and options that come before them."""

import csv
import tomllib
from pathlib import Path

import pytest
import tomlkit
import torch
from shell import innerloop, mistake

from innerloop_learner.bundle import load_bundle
from innerloop_learner.settings import SettingsError
from innerloop_trainer.config import ConfigError, TrainingConfig, differences
from innerloop_trainer.recipes import Recipe, make_recipe, read_recipe, write_recipe
from innerloop_trainer.runs.folder import RunFolder

SETTINGS = {
    "method": "maml",
    "data": "digits",
    "ways": 2,
    "queries": 3,
    "steps": 2,
    "iterations": 4,
    "meta_batch": 2,
    "learning_rate": 0.0021,
    "seed": 3,
    "validate_every": 2,
    "validation_episodes": 2,
    "test_episodes": 7,
    "calibration_episodes": 0,
    "set": {"rate": 0.013},
    "backbone_set": {"width": 8, "norm": "task"},
}


def write(path: Path, **changes: object) -> Path:
    path.write_text(tomlkit.dumps({**SETTINGS, **changes}))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained from a recipe."""
    folder = tmp_path_factory.mktemp("runs")
    answer = innerloop("train", "--no-report", "--recipe", write(folder / "recipe.toml"), "--out", folder / "run")
    assert answer.status == 0, answer
    return folder / "run"


def figures(run: Path) -> list[dict[str, str]]:
    """The log of a run, without its times."""
    with (run / "log.csv").open() as file:
        return [{name: row[name] for name in row if "second" not in name} for row in csv.DictReader(file)]


def test_a_recipe_trains_as_the_same_options_do(run: Path, tmp_path: Path) -> None:
    options = [
        *("--data", "digits", "--ways", 2, "--queries", 3, "--steps", 2, "--iterations", 4, "--meta-batch", 2),
        *("--learning-rate", 0.0021, "--seed", 3, "--validate-every", 2, "--validation-episodes", 2),
        *("--test-episodes", 7, "--calibration-episodes", 0, "--set", "rate=0.013"),
        *("--backbone-set", "width=8", "--backbone-set", "norm=task"),
    ]
    assert innerloop("train", "--no-report", "maml", *options, "--out", tmp_path / "run").status == 0
    assert (tmp_path / "run" / "config.json").read_text() == (run / "config.json").read_text()
    assert (tmp_path / "run" / "recipe.toml").read_text() == (run / "recipe.toml").read_text()


def test_the_recipe_of_a_run_makes_the_same_run_again_to_the_bit(run: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert innerloop("train", "--no-report", "--recipe", run / "recipe.toml", "--out", again).status == 0
    assert figures(again) == figures(run)
    theirs, ours = load_bundle(run / "bundle"), load_bundle(again / "bundle")
    assert ours.params.keys() == theirs.params.keys()
    assert all(torch.equal(ours.params[name], theirs.params[name]) for name in ours.params)
    assert ours.manifest.metrics == theirs.manifest.metrics
    assert (again / "recipe.toml").read_text() == (run / "recipe.toml").read_text()


def test_the_recipe_of_a_run_has_all_defaults_filled_in(run: Path) -> None:
    recipe = tomllib.loads((run / "recipe.toml").read_text())
    assert recipe.items() >= {**SETTINGS, "backbone_set": recipe["backbone_set"]}.items()
    assert (recipe["backbone"], recipe["schedule"], recipe["shots"], recipe["train_ways"]) == ("conv4", "cosine", 1, 2)
    assert recipe["backbone_set"]["downsample"] == "stride"


def test_a_run_can_be_resumed_by_its_own_recipe(run: Path) -> None:
    answer = innerloop("train", "--no-report", "--recipe", run / "recipe.toml", "--out", run, "--resume")
    assert answer.status == 0, answer


def test_options_come_before_the_recipe_and_the_recipe_before_defaults(tmp_path: Path) -> None:
    recipe = write(tmp_path / "recipe.toml", backbone="conv4")
    options = ["--ways", 2, "--shots", 2, "--iterations", 2, "--set", "max_steps=7", "--seed", 0, "--steps", 3]
    answer = innerloop("train", "--no-report", "anil", "--recipe", recipe, *options, "--out", tmp_path / "run")
    assert answer.status == 0, answer
    config = RunFolder(tmp_path / "run").load_config()
    assert (config.method, config.shots, config.iterations, config.seed, config.steps) == ("anil", 2, 2, 0, 3)
    assert (config.queries, config.settings) == (3, {"rate": 0.013, "max_steps": 7})


def test_an_option_that_equals_its_default_still_comes_before_the_recipe(tmp_path: Path) -> None:
    recipe = write(tmp_path / "recipe.toml", seed=9, iterations=2)
    assert innerloop("train", "--no-report", "--recipe", recipe, "--seed", 0, "--out", tmp_path / "run").status == 0
    assert RunFolder(tmp_path / "run").load_config().seed == 0


def test_relative_paths_are_relative_to_the_folder_of_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "encoder.onnx").touch()
    monkeypatch.chdir(tmp_path)
    settings = {"data": "images:../photos?size=32", "init": "a", "teacher": ["b", "/c"], "encoder": "encoder.onnx"}
    recipe = read_recipe(write(Path("recipes/recipe.toml"), **settings))
    assert recipe.settings["data"] == f"images:{tmp_path}/photos?size=32"
    assert recipe.settings["init"] == f"{tmp_path}/recipes/a"
    assert recipe.settings["teacher"] == [f"{tmp_path}/recipes/b", "/c"]
    assert recipe.settings["encoder"] == f"{tmp_path}/recipes/encoder.onnx"


def test_what_is_no_path_stays_as_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "efficientnet-lite0").touch()
    settings = {"data": "digits?domains=rotation", "encoder": "efficientnet-lite0?size=160", "init": "~/x"}
    recipe = read_recipe(write(tmp_path / "recipe.toml", **settings))
    assert {name: recipe.settings[name] for name in settings} == settings
    remote = {"encoder": "hf:owner/repository"}
    assert read_recipe(write(tmp_path / "recipe.toml", **remote)).settings["encoder"] == "hf:owner/repository"


def test_the_same_data_by_a_relative_and_an_absolute_path_is_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    relative, absolute = (TrainingConfig("maml", f"images:{path}") for path in ("photos", f"{tmp_path}/photos"))
    assert differences(relative, absolute) == []
    [text] = differences(relative, TrainingConfig("maml", "images:other"))
    assert text == "--data is images:photos there, images:other here"


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        {"method": "protonet", "data": "glyphs"},
        {**SETTINGS, "unlabelled": False, "wrong_labels": 0.1, "teacher": ["/x", "/y"], "init": "/z", "set": {}},
        {**SETTINGS, "learning_rate": 1e-05, "set": {"rate": 1e-300, "names": ["a", 'b"\n'], "deep": {"x": [{}]}}},
        {**SETTINGS, "encoder": "all-minilm-l6-v2", "tokenizer": "/t.json", "augment": "flip?strength=0.5"},
    ],
)
def test_a_recipe_that_is_written_and_read_is_the_same(settings: dict[str, object], tmp_path: Path) -> None:
    recipe = make_recipe(settings)
    write_recipe(tmp_path / "recipe.toml", recipe, tmp_path)
    read = make_recipe(read_recipe(tmp_path / "recipe.toml").settings)
    assert read.to_settings() == recipe.to_settings()
    assert isinstance(read, Recipe)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning-rate": 0.1}, "recipe.toml has no setting 'learning-rate'; did you mean learning_rate?"),
        ({"iteration": 5}, "did you mean iterations?"),
        ({"settings": {}}, "recipe.toml has no setting 'settings'; "),
        ({"device": "cuda"}, "recipe.toml has no setting 'device'; "),
        ({"ways": "five"}, "recipe: ways must be a whole number, not 'five'"),
        ({"ways": True}, "recipe: ways must be a whole number, not True"),
        ({"iterations": 2.5}, "recipe: iterations must be a whole number, not 2.5"),
        ({"schedule": "linear"}, "recipe: schedule must be cosine or constant, not 'linear'"),
        ({"test_episodes": 1}, "recipe: test_episodes must be at least 2, not 1"),
        ({"teacher": "runs/a"}, "recipe: teacher must be a list, each a text, not 'runs/a'"),
        ({"set": 3}, "recipe: settings must be an object, not 3"),
        ({"set": {"rat": 3}}, "maml has no setting 'rat'"),
        ({"expected": 3}, "write figures below [[expected]]"),
        ({"data": "digit"}, "unknown data source 'digit'"),
    ],
)
def test_a_mistake_in_a_recipe_is_told(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    recipe = write(tmp_path / "recipe.toml", **changes)
    assert message in mistake("train", "--recipe", recipe, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path) -> None:
    assert "nowhere.toml can't be read: No such file" in mistake("train", "--recipe", "nowhere.toml", "--out", "x")
    (tmp_path / "broken.toml").write_text("ways = ")
    assert "broken.toml can't be read: " in mistake("train", "--recipe", tmp_path / "broken.toml", "--out", "x")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    assert "binary.toml can't be read: " in mistake("train", "--recipe", tmp_path / "binary.toml", "--out", "x")


def test_method_and_data_are_asked_for_where_neither_option_nor_recipe_names_them(tmp_path: Path) -> None:
    assert "no method is named; name it with innerloop train METHOD" in mistake("train", "--out", tmp_path / "run")
    assert "no data is named; name it with --data SOURCE" in mistake("train", "maml", "--out", tmp_path / "run")


def test_wrong_types_are_refused_in_a_program_too() -> None:
    with pytest.raises(SettingsError, match="seed must be a whole number, not None"):
        make_recipe({**SETTINGS, "seed": None})
    with pytest.raises(ConfigError, match="did you mean backbone_set"):
        make_recipe({**SETTINGS, "backbone-set": {}})

"""`innerloop tune`: proposals that depend on seed and history alone, trials that fail, stop, or go on elsewhere."""

import errno
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from shell import innerloop, mistake

pytest.importorskip("optuna")

from innerloop_learner.bundle import load_bundle
from innerloop_trainer.config import ConfigError
from innerloop_trainer.recipes import make_recipe, read_recipe
from innerloop_trainer.runs.room import UnsavedError
from innerloop_trainer.tuning import Tuning, TuningFolder, read_dimensions
from innerloop_trainer.tuning.dimension import applied

SETTINGS: dict[str, Any] = {
    "method": "protonet",
    "data": "digits",
    "ways": 2,
    "train_ways": 2,
    "queries": 3,
    "iterations": 4,
    "validate_every": 2,
    "validation_episodes": 4,
    "test_episodes": 5,
    "calibration_episodes": 0,
    "backbone_set": {"width": 4},
}
SEARCH = ["learning_rate=1e-4..1e-1:log", "meta_batch=1..2"]


def study(folder: Path, *, search: list[str] = SEARCH, trials: int = 3, **options: Any) -> Tuning:
    settings = {**SETTINGS, **options.pop("settings", {})}
    return Tuning(
        settings, read_dimensions(search), TuningFolder(folder), torch.device("cpu"), trials=trials, **options
    )


def run(tuning: Tuning, stop_after: int = 10**6) -> bool:
    """Run a study, and stop it after so many outer steps."""
    steps = iter(range(10**6))
    return tuning.run(lambda _: None, lambda: next(steps) >= stop_after)


def outcomes(tuning: Tuning) -> list[tuple[Any, ...]]:
    return [(dict(each.settings), each.outcome, each.validation) for each in tuning.tried]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Tuning:
    """A study of three trials."""
    tuning = study(tmp_path_factory.mktemp("tuning") / "study")
    assert run(tuning)
    return tuning


def test_the_best_is_the_one_that_validates_best(finished: Tuning) -> None:
    best = finished.best
    assert best is not None
    assert best.validation == max(each.validation or 0 for each in finished.tried)
    recipe = make_recipe(read_recipe(finished.folder.best).settings)
    assert recipe.training.learning_rate == best.settings["learning_rate"]
    assert recipe.training.meta_batch == best.settings["meta_batch"]


def test_only_the_best_is_measured_on_test_classes(finished: Tuning) -> None:
    best, metric = finished.best, finished.test_best()
    assert best is not None
    assert metric is not None
    assert "2-way 1-shot, 5 test episodes" in metric.protocol
    results = json.loads(finished.folder.results.read_text())
    assert (results["best"], results["test"]["value"]) == (best.trial, metric.value)
    assert len(results["trials"]) == 3
    for each in finished.tried:
        metrics = load_bundle(finished.folder.trial(each.trial) / "bundle").manifest.metrics
        assert all("validation" in known.protocol for known in metrics)


def test_the_best_of_short_trials_is_tested_with_as_many_tasks_as_a_short_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(SETTINGS, "test_episodes")
    tuning = study(tmp_path / "study", trials=1)
    assert run(tuning)
    metric = tuning.test_best()
    assert metric is not None
    assert "100 test episodes" in metric.protocol


def test_a_study_that_is_stopped_anywhere_goes_on_to_the_same_end(finished: Tuning, tmp_path: Path) -> None:
    first = study(tmp_path / "study")
    assert not run(first, stop_after=7)
    second = study(tmp_path / "study", resume=True)
    assert run(second)
    assert outcomes(second) == outcomes(finished)


def test_a_study_whose_process_was_killed_goes_on_to_the_same_end(finished: Tuning, tmp_path: Path) -> None:
    killed = study(tmp_path / "study")
    with pytest.raises(KeyboardInterrupt):
        killed.run(raise_at_step_three_of_the_second_trial, lambda: False)
    second = study(tmp_path / "study", resume=True)
    assert run(second)
    assert outcomes(second) == outcomes(finished)


def test_a_trial_that_can_not_be_resumed_fails_and_what_it_saved_stays(tmp_path: Path) -> None:
    first = study(tmp_path / "study")
    assert not run(first, stop_after=8)
    files = [first.folder.trial(1) / name for name in ("latest.safetensors", "checkpoints/step-00000002.safetensors")]
    files[0].write_bytes(b"cut short")
    before = [file.read_bytes() for file in files]
    second = study(tmp_path / "study", resume=True)
    assert run(second)
    assert [each.outcome for each in second.tried] == ["complete", "failed", "complete"]
    assert "latest.safetensors is damaged" in second.tried[1].failure
    assert [file.read_bytes() for file in files] == before


def raise_at_step_three_of_the_second_trial(report: Any) -> None:
    if report.training is not None and report.ended == 1:
        raise KeyboardInterrupt


def test_a_full_disk_ends_a_study_which_goes_on_to_the_same_end(
    finished: Tuning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("innerloop_trainer.runs.training.save_bundle", full)
    with pytest.raises(UnsavedError, match="make room"):
        run(study(tmp_path / "study"))
    monkeypatch.undo()
    resumed = study(tmp_path / "study", resume=True)
    assert run(resumed)
    assert outcomes(resumed) == outcomes(finished)


def test_processes_share_a_study(tmp_path: Path) -> None:
    one = study(tmp_path / "study", trials=4)
    other = study(tmp_path / "study", trials=4, resume=True)
    seen: list[int] = []

    def meanwhile(report: Any) -> None:
        if report.tried is not None and not seen:
            seen.append(report.trial)
        elif report.training is not None and len(seen) == 1:
            seen.append(-1)  # in the middle of a trial of this process, the other one takes all that are left
            assert run(other)

    assert one.run(meanwhile, lambda: False)
    assert sorted(each.trial for each in one.tried) == [0, 1, 2, 3]
    assert one.finished
    assert outcomes(one) == outcomes(other)


def test_more_trials_can_be_added(finished: Tuning) -> None:
    more = study(finished.folder.path, trials=4, resume=True)
    assert run(more)
    assert outcomes(more)[:3] == outcomes(finished)[:3]
    assert len(more.tried) == 4


def test_contradictory_settings_fail_their_trial_and_no_other(tmp_path: Path) -> None:
    tuning = study(tmp_path / "study", search=["backbone_set.norm=batch,nothing", "seed=1,2"], trials=4)
    assert run(tuning)
    by_norm = {each.settings["backbone_set.norm"]: each for each in tuning.tried}
    assert by_norm["nothing"].outcome == "failed"
    assert "unknown norm 'nothing'" in by_norm["nothing"].failure
    assert by_norm["batch"].outcome == "complete"
    assert len(tuning.tried) == 4, "nothing is tried twice"
    assert tuning.best is not None
    assert tuning.best.settings["backbone_set.norm"] == "batch"


def test_divergence_fails_its_trial_and_no_other(tmp_path: Path) -> None:
    settings = {"method": "maml", "train_ways": 2, "backbone_set": {"width": 4, "norm": "none"}}
    tuning = study(tmp_path / "study", settings=settings, search=["set.rate=0.01,1e30"], trials=2)
    assert run(tuning)
    failed = {each.settings["set.rate"]: each.failure for each in tuning.tried}
    assert failed[0.01] == ""
    assert "diverge" in failed[1e30]


def test_a_study_ends_where_nothing_new_can_be_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("innerloop_trainer.tuning.tuning.MOST_REPEATS", 15)
    tuning = study(tmp_path / "study", search=["seed=1,2"], trials=9)
    assert run(tuning)
    assert sorted(each.settings["seed"] for each in tuning.tried) == [1, 2]


def test_trials_that_fall_behind_are_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("innerloop_trainer.tuning.tuning.STARTUP_TRIALS", 1)
    rates = "learning_rate=0.01,0.02,1e-9,2e-9"
    settings = {"schedule": "constant", "iterations": 20, "validate_every": 5, "validation_episodes": 20}
    tuning = study(tmp_path / "study", settings=settings, search=[rates], trials=4)
    assert run(tuning)
    assert "stopped" in {each.outcome for each in tuning.tried}
    assert tuning.best is not None
    assert tuning.best.settings["learning_rate"] >= 0.01


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat=1..2", "did you mean learning_rate?"),
        ("learning_rate", "write what is searched as NAME=LEAST..MOST"),
        ("learning_rate=1e-2..1e-4", "learning_rate=1e-2..1e-4"),
        ("learning_rate=0..1:log", "learning_rate=0..1:log"),
        ("learning_rate=1..x", "learning_rate=1..x"),
        ("learning_rate=0.1..inf", "a range has finite ends"),
        ("learning_rate=0.1..1:lin", "behind a range stands :log or nothing, not :lin"),
        ("meta_batch=8..2", "meta_batch=8..2"),
        ("seed=1,1", "each choice stands there once"),
        ("set=1,2", "set is a table; name one of it, as set.NAME"),
        ("ways.x=1,2", "ways is no table; leave out what follows the dot"),
        ("data=digits,glyphs", "data can't be searched"),
    ],
)
def test_a_search_that_makes_no_sense_is_told(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as told:
        read_dimensions([text])
    assert message in str(told.value)


def test_values_of_a_search_have_the_types_of_settings() -> None:
    dimensions = read_dimensions(["ways=2..3", "set.rate=0.5..1", "unlabelled=true,false", "augment=flip?strength=1,x"])
    proposal = {"ways": 2, "set.rate": 0.5, "unlabelled": "false", "augment": "x"}
    found = applied({"set": {"other": 1}, "ways": 7}, dimensions, proposal)
    assert found == {"ways": 2, "set": {"other": 1, "rate": 0.5}, "unlabelled": False, "augment": "x"}


def test_the_command_tunes_shows_a_table_and_leaves_a_recipe(tmp_path: Path) -> None:
    options = [f"--search={each}" for each in ("learning_rate=0.001,0.01", "shots=1..2")]
    fixed = ["--ways", 2, "--train-ways", 2, "--queries", 3, "--iterations", 2, "--validation-episodes", 2]
    command = ["protonet", "--data", "digits", *fixed, "--test-episodes", 2, "--backbone-set", "width=4"]
    answer = innerloop("tune", *command, *options, "--trials", 2, "--out", tmp_path / "study")
    assert answer.status == 0, answer
    assert "best" in answer.output
    assert "shots changes the tasks of validation" in answer.output
    assert "2 test episodes" in answer.output
    assert tomllib.loads((tmp_path / "study" / "best.toml").read_text())["method"] == "protonet"
    again = [*command, *options, "--trials", 2, "--out", tmp_path / "study"]
    assert "holds a study already; join it with --resume" in mistake("tune", *again)
    assert innerloop("tune", *again, "--resume").status == 0
    assert "holds a study of other settings" in mistake("tune", *again, "--resume", "--seed", 3)

"""Runs: what they leave on disk, and that stopping and resuming changes nothing of it."""

import errno
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import CPU, DIGITS, SINUSOID, train, training
from shell import innerloop
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from innerloop_learner.bundle import load_bundle, save_bundle
from innerloop_learner.objectives import Stage
from innerloop_learner.precision import tf32_allowed
from innerloop_trainer.config import ConfigError, TrainingConfig
from innerloop_trainer.data import load_source
from innerloop_trainer.evaluation import evaluate
from innerloop_trainer.outer_loop import Estimate, OuterLoop
from innerloop_trainer.outer_loop.estimators.backpropagation import Backpropagation
from innerloop_trainer.plan import make_plan
from innerloop_trainer.runs import training as training_module
from innerloop_trainer.runs.folder import RunError, RunFolder
from innerloop_trainer.runs.log import Row, RunLog, _WholeRecords, read_rows
from innerloop_trainer.runs.room import UnsavedError
from innerloop_trainer.runs.training import DivergedError, Report

each_config = pytest.mark.parametrize("config", [DIGITS, SINUSOID], ids=["digits-batch-norm", "sinusoid"])


def without_times(row: Row) -> Row:
    return replace(row, seconds=0.0, tasks_per_second=0.0)


def assert_same_runs(a: RunFolder, b: RunFolder) -> None:
    """Parameters, optimizer, figures and best parameters are equal to the bit; only times may differ."""
    (state, progress), (other_state, other_progress) = a.load_latest(CPU), b.load_latest(CPU)
    del state["recent_figures"], other_state["recent_figures"]  # begun after the last row, and holds times
    assert state.keys() == other_state.keys()
    assert any(name.startswith("optimizer.") for name in state)
    assert all(torch.equal(value, other_state[name]) for name, value in state.items())
    assert replace(progress, seconds=0) == replace(other_progress, seconds=0)
    assert [without_times(row) for row in read_rows(a.log)] == [without_times(row) for row in read_rows(b.log)]
    best, other_best = load_bundle(a.bundle), load_bundle(b.bundle)
    assert all(torch.equal(value, other_best.params[name]) for name, value in best.params.items())
    assert best.manifest.metrics == other_best.manifest.metrics


@each_config
@pytest.mark.parametrize("stop_at", [1, 5, 7], ids=["at once", "after a validation", "between validations"])
def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one(
    config: TrainingConfig, stop_at: int, tmp_path: Path
) -> None:
    uninterrupted = train(config, tmp_path / "uninterrupted")
    train(config, tmp_path / "interrupted", stop_at=stop_at)
    assert RunFolder(tmp_path / "interrupted").load_latest(CPU)[1].iteration == stop_at
    assert_same_runs(uninterrupted, train(config, tmp_path / "interrupted", resume=True))


@pytest.mark.parametrize("stop_at", [3, 7], ids=["before any validation", "later"])
def test_a_run_that_was_killed_resumes_from_its_last_checkpoint(stop_at: int, tmp_path: Path) -> None:
    def killed() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(DIGITS, tmp_path / "killed", stop_at=stop_at, how=killed)
    assert RunFolder(tmp_path / "killed").load_latest(CPU)[1].iteration == stop_at // 5 * 5
    assert_same_runs(train(DIGITS, tmp_path / "whole"), train(DIGITS, tmp_path / "killed", resume=True))


@pytest.mark.parametrize(
    ("method", "estimator", "settings"),
    [
        ("maml", "es", {"rate": 0.01, "steps": 2, "population": 4}),
        ("imaml", "implicit", {"rate": 0.01, "steps": 2}),
        ("partial-maml", "reinforce", {"rate": 0.01, "steps": 2}),
        ("lstm-optimizer", "pes", {"hidden": 2, "steps": 8, "population": 4, "partial_unroll": 3}),
    ],
)
def test_runs_by_any_estimator_resume_to_the_bit(
    method: str, estimator: str, settings: dict[str, float], tmp_path: Path
) -> None:
    config = replace(SINUSOID, method=method, estimator=estimator, settings=settings)
    train(config, tmp_path / "stopped", stop_at=7)
    assert_same_runs(train(config, tmp_path / "whole"), train(config, tmp_path / "stopped", resume=True))


def test_a_run_that_was_killed_between_validations_resumes_from_what_the_clock_saved(tmp_path: Path) -> None:
    def killed() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(SINUSOID, tmp_path / "killed", stop_at=9, how=killed, save_minutes=0)
    assert RunFolder(tmp_path / "killed").load_latest(CPU)[1].iteration == 8
    assert_same_runs(train(SINUSOID, tmp_path / "whole"), train(SINUSOID, tmp_path / "killed", resume=True))


class SmallDisk:
    """A function that finds no room on the disk while `full`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function, self.full = function, False

    def __call__(self, *args: Any) -> Any:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._function(*args)


def small_disk(what: str, monkeypatch: pytest.MonkeyPatch) -> SmallDisk:
    """What a function of the disk is replaced by: that which writes lines of logs, or that which writes bundles."""
    if what == "logs":
        disk = SmallDisk(_WholeRecords._written)
        monkeypatch.setattr(_WholeRecords, "_written", lambda *args: disk(*args))
    else:
        disk = SmallDisk(save_bundle)
        monkeypatch.setattr("innerloop_trainer.runs.training.save_bundle", disk)
    return disk


@pytest.mark.parametrize("what", ["logs", "bundle"])
def test_a_disk_that_is_full_at_a_validation_stops_no_training(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(SINUSOID, tmp_path / "whole")
    disk, notices = small_disk(what, monkeypatch), list[str]()
    run = training(SINUSOID, tmp_path / "run", save_minutes=0)

    def full_for_a_while() -> bool:
        disk.full = 4 <= run.progress.iteration < 8
        if run.progress.iteration == 7:
            assert run.folder.load_latest(CPU)[1].iteration == 4
        return False

    def listen(report: Report) -> None:
        notices.extend([report.notice] if report.notice else [])

    assert run.run(listen, full_for_a_while)
    assert_same_runs(whole, run.folder)
    assert len(notices) == 1
    assert "could not be saved" in notices[0]
    assert "No space left on device" in notices[0]


@pytest.mark.parametrize("what", ["logs", "bundle"])
def test_a_run_that_ends_on_a_full_disk_says_so_and_goes_on_where_it_was_saved(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(SINUSOID, tmp_path / "whole")
    disk = small_disk(what, monkeypatch)
    run = training(SINUSOID, tmp_path / "run", save_minutes=0)

    def full_from_now_on() -> bool:
        disk.full = disk.full or run.progress.iteration == 4
        return False

    with pytest.raises(UnsavedError, match=r"No space left on device.*make room.*--resume"):
        run.run(lambda _: None, full_from_now_on)
    assert run.folder.load_latest(CPU)[1].iteration == 4
    disk.full = False
    assert_same_runs(whole, train(SINUSOID, run.folder.path, resume=True))


def test_best_parameters_that_wait_for_room_are_written_when_something_else_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = small_disk("bundle", monkeypatch)
    run = training(SINUSOID, tmp_path / "run")

    def full_until_the_run_is_killed() -> bool:
        disk.full = run.progress.iteration < 7
        if not disk.full:
            raise KeyboardInterrupt
        return False

    disk.full = True
    with pytest.raises(KeyboardInterrupt):
        run.run(lambda _: None, full_until_the_run_is_killed)
    assert load_bundle(run.folder.bundle).manifest.provenance.iterations == 5


def test_runs_survive_a_disk_that_really_is_full(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", small], check=False)
    if mounted.returncode:
        pytest.skip("a small disk can't be mounted here")
    try:
        config = replace(SINUSOID, validate_every=2, learning_rate=0.02)
        whole = train(config, tmp_path / "whole")
        run, filler, notices = training(config, small / "run", save_minutes=0), small / "filler", list[str | None]()

        def fill_and_empty() -> bool:
            run._checkpoints.wait()
            if run.progress.iteration == 3:
                with filler.open("wb", buffering=0) as file, suppress(OSError):
                    while True:
                        file.write(bytes(512))
            if run.progress.iteration == 9:
                filler.unlink()
            return False

        assert run.run(lambda report: notices.append(report.notice), fill_and_empty)
        assert_same_runs(whole, run.folder)
        assert any(notices)
        assert not [path for path in run.folder.path.rglob("*") if ".new" in path.name or ".incoming" in path.name]
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_run_can_be_interrupted_again_and_again(tmp_path: Path) -> None:
    for stop_at in (2, 4, 9):
        train(SINUSOID, tmp_path / "patched", stop_at=stop_at, resume=stop_at > 2)
    assert_same_runs(train(SINUSOID, tmp_path / "whole"), train(SINUSOID, tmp_path / "patched", resume=True))


@each_config
def test_the_bundle_holds_the_best_validated_parameters(config: TrainingConfig, tmp_path: Path) -> None:
    config = replace(config, validate_every=1, learning_rate=0.02)
    folder = train(config, tmp_path / "run")
    rows = read_rows(folder.log)
    choose = min if config.data == "sinusoid" else max
    best = choose(rows, key=lambda row: row.validation)
    bundle = load_bundle(folder.bundle)
    assert bundle.manifest.provenance.iterations == best.iteration
    (metric,) = bundle.manifest.metrics
    assert (metric.value, metric.confidence_interval) == (best.validation, best.validation_interval)
    source = load_source(config.data)
    shape = make_plan(config, source, CPU).validation
    again = evaluate(bundle.learner, bundle.params, source.validation, shape, split="validation", episodes=4)
    assert again.mean == best.validation


def test_the_log_has_a_row_for_every_validation_and_tensorboard_the_same(tmp_path: Path) -> None:
    train(DIGITS, tmp_path / "run", stop_at=7)
    folder = train(DIGITS, tmp_path / "run", resume=True)
    rows = read_rows(folder.log)
    assert [row.iteration for row in rows] == [5, 10, 12]
    assert [row.seconds for row in rows] == sorted(row.seconds for row in rows)
    assert all(row.tasks_per_second > 0 and row.loss > 0 and 0 <= row.validation <= 1 for row in rows)
    assert rows[0].learning_rate > rows[-1].learning_rate > 0
    events = EventAccumulator(str(folder.tensorboard))
    events.Reload()
    for name in ("loss", "training", "validation", "learning_rate"):
        logged = [(event.step, event.value) for event in events.Scalars(name)]
        assert logged == [(row.iteration, pytest.approx(getattr(row, name), rel=1e-6)) for row in rows]


def test_the_learning_curve_is_a_picture(tmp_path: Path) -> None:
    folder = train(SINUSOID, tmp_path / "run")
    assert folder.curve.read_bytes().startswith(b"\x89PNG")
    assert folder.curve.stat().st_size > 5_000


def test_a_log_forgets_what_came_after_the_checkpoint_and_what_a_crash_cut_short(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    first, second = Row(5, 1.5, 30.0, 1e-3, 0.7, 0.5, 0.6, 0.1), Row(10, 3.0, 30.0, 5e-4, 0.6, 0.6, 0.7, 0.1)
    log = RunLog(folder, 0)
    log.add(first)
    log.add(second)
    log.write()
    log.close()
    assert read_rows(folder.log) == [first, second]
    with folder.log.open("a") as file:
        file.write("12,3.5,30")
    RunLog(folder, 5).close()
    assert read_rows(folder.log) == [first]


def test_reports_say_how_far_training_is(tmp_path: Path) -> None:
    reports: list[Report] = []
    run = training(SINUSOID, tmp_path / "run")
    assert run.run(reports.append, lambda: False)
    validated = [report for report in reports if report.row]
    assert [report.progress.iteration for report in validated] == [5, 10, 12]
    assert all(report.tasks_per_second > 0 and report.loss > 0 for report in reports)


def test_training_on_sine_waves_lowers_the_error(tmp_path: Path) -> None:
    config = replace(SINUSOID, iterations=300, validate_every=100, meta_batch=8, validation_episodes=50, shots=10)
    config = replace(config, learning_rate=0.01, queries=10)
    rows = read_rows(train(config, tmp_path / "run").log)
    assert rows[-1].validation < 0.9 * rows[0].validation


def test_training_that_diverges_says_so(tmp_path: Path) -> None:
    steep = replace(SINUSOID, settings={"rate": 1e6, "steps": 5})
    with pytest.raises(DivergedError, match=r"before step 5: training diverged.*learning rate"):
        train(steep, tmp_path / "run")


def test_parameters_that_diverged_never_replace_a_good_checkpoint(tmp_path: Path) -> None:
    steep = replace(SINUSOID, settings={"rate": 1e6, "steps": 5})
    with pytest.raises(DivergedError, match="training diverged"):
        train(steep, tmp_path / "run", save_minutes=0)
    state, _ = RunFolder(tmp_path / "run").load_latest(CPU)
    assert all(value.isfinite().all() for value in state.values())


@each_config
def test_parameters_that_the_latest_step_spoiled_are_neither_saved_nor_served(
    config: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimate = Backpropagation.estimate

    def infinite_before_the_first_validation(self: Backpropagation, *arguments: Any) -> Estimate:
        found, stage = estimate(self, *arguments), arguments[-1]
        if round(stage.progress * config.iterations) == config.validate_every - 1:
            next(iter(found.gradients.values())).fill_(torch.inf)
        return found

    monkeypatch.setattr(Backpropagation, "estimate", infinite_before_the_first_validation)
    with pytest.raises(DivergedError, match="parameters are no longer finite after step 5: training diverged"):
        train(config, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    state, progress = folder.load_latest(CPU)
    assert progress.iteration == 0
    assert all(value.isfinite().all() for value in state.values())
    assert not folder.bundle.exists()


def test_a_run_is_not_started_over_another(tmp_path: Path) -> None:
    train(SINUSOID, tmp_path / "run", stop_at=1)
    before = sorted((path, path.read_bytes()) for path in (tmp_path / "run").rglob("*") if path.is_file())
    with pytest.raises(RunError, match="holds a run already; continue it with --resume"):
        train(SINUSOID, tmp_path / "run")
    assert before == sorted((path, path.read_bytes()) for path in (tmp_path / "run").rglob("*") if path.is_file())


def test_a_run_is_not_started_among_other_files(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="holds other files"):
        train(SINUSOID, tmp_path)
    with pytest.raises(RunError, match="is a file"):
        train(SINUSOID, tmp_path / "notes.txt")


def test_nothing_can_be_resumed_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no training run"):
        train(SINUSOID, tmp_path / "run", resume=True)


def test_resuming_with_other_settings_names_them(tmp_path: Path) -> None:
    train(SINUSOID, tmp_path / "run", stop_at=1)
    other = replace(SINUSOID, seed=3, settings={"rate": 0.02, "steps": 2, "max_steps": 9})
    with pytest.raises(RunError) as caught:
        train(other, tmp_path / "run", resume=True)
    message = str(caught.value)
    assert "--seed is 0 there, 3 here; " in message
    assert "--set rate is 0.01 there, 0.02 here; " in message
    assert "--set max_steps is unset there, 9 here; " in message
    assert "--shots" not in message


@pytest.mark.parametrize("name", ["latest.safetensors", "config.json"])
@pytest.mark.parametrize("damage", ["truncated", "overwritten", "removed"])
def test_a_damaged_run_says_which_file_is_damaged(name: str, damage: str, tmp_path: Path) -> None:
    train(SINUSOID, tmp_path / "run", stop_at=1)
    file = tmp_path / "run" / name
    if damage == "removed":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-10] if damage == "truncated" else b"[1, 2, 3]")
    expected = "holds no training run|stopped before anything was saved" if damage == "removed" else str(file)
    with pytest.raises(RunError, match=expected):
        train(SINUSOID, tmp_path / "run", resume=True)


def test_a_seed_gives_the_same_run_and_another_seed_another(tmp_path: Path) -> None:
    runs = [train(replace(SINUSOID, seed=seed), tmp_path / str(index)) for index, seed in enumerate((0, 0, 1))]
    losses = [[row.loss for row in read_rows(run.log)] for run in runs]
    assert losses[0] == losses[1] != losses[2]


def test_a_run_with_a_learned_policy_leaves_a_bundle_with_its_strengths(tmp_path: Path) -> None:
    settings = {"copies": 2, "augment": "affine?rotation=20,stroke"}
    config = replace(DIGITS, method="protonet", settings={}, support_policy="learned", policy_settings=settings)
    folder = train(config, tmp_path / "run")
    bundle = load_bundle(folder.bundle)
    strengths = bundle.learner.support_policy.strengths(bundle.params)
    assert strengths.keys() == {"affine", "stroke"}
    assert strengths["affine"]["rotation"] != 20
    shown = " ".join(innerloop("inspect", folder.bundle).output.replace("│", " ").split())
    assert "learned: 2 augmented copies of each example, each of which counts" in shown
    assert f"affine: rotation {float(strengths['affine']['rotation']):.3g}, largest rotation to either side" in shown
    assert folder.load_config().policy_settings == settings


def test_a_run_on_wrong_labels_leaves_a_bundle_that_weighs_its_examples(tmp_path: Path) -> None:
    config = replace(DIGITS, method="protonet", settings={}, shots=5, wrong_labels=0.4, weighting="leave_one_out")
    bundle = load_bundle(train(config, tmp_path / "run").bundle)
    assert bundle.learner.spec.weighting == "leave_one_out"
    assert bundle.params["weighting.out.weight"].abs().min() > 0
    assert "5-shot (up to 2 of them wrong)" in bundle.manifest.metrics[0].protocol


@pytest.mark.parametrize(
    ("method", "max_ways", "expected"), [("protonet", None, 64), ("protonet", 200, 200), ("oml", None, 1000)]
)
def test_a_bundle_serves_as_many_ways_as_was_said(method: str, max_ways: int | None, expected: int) -> None:
    config = replace(DIGITS, method=method, settings={}, max_ways=max_ways, train_ways=2)
    assert make_plan(config, load_source(config.data), CPU).limits.max_ways == expected


def test_tf32_is_for_outer_steps_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="tf32 is a precision of GPUs; take --precision bfloat16 on a CPU"):
        training(replace(SINUSOID, precision="tf32"), tmp_path)
    run, allowed = training(SINUSOID, tmp_path), set[tuple[str, bool]]()
    run.plan = replace(run.plan, config=replace(SINUSOID, precision="tf32"))  # as on a GPU
    for owner, name in ((OuterLoop, "step"), (training_module, "evaluate")):
        function = getattr(owner, name)

        def noted(*args: Any, name: str = name, function: Any = function, **kwargs: Any) -> Any:
            allowed.add((name, torch.backends.cudnn.allow_tf32))
            return function(*args, **kwargs)

        monkeypatch.setattr(owner, name, noted)
    with tf32_allowed(False):
        run.run(lambda _: None, lambda: False)
    assert allowed == {("step", True), ("evaluate", False)}


def test_bfloat16_is_for_outer_steps_alone(tmp_path: Path) -> None:
    exact, low = (
        training(replace(DIGITS, method="protonet", settings={}, precision=precision), tmp_path).plan
        for precision in ("float32", "bfloat16")
    )
    assert low.estimator.objective.learner.backbone.low_precision
    assert not low.learner.backbone.low_precision  # which validates, and is served
    params = exact.init(torch.Generator().manual_seed(0))
    episodes = exact.source.train.sample(exact.episodes, 2, torch.Generator().manual_seed(0))
    losses = [plan.estimator.objective(params, episodes, Stage(0.0, 0)).loss.item() for plan in (exact, low)]
    assert losses[1] == pytest.approx(losses[0], rel=0.2)
    assert losses[1] != losses[0]

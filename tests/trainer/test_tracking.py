"""Trackers hear of a run from its start to its end, and none of them can end it."""

import errno
import sys
from pathlib import Path
from typing import Any

import pytest
from shell import Answer, innerloop, mistake

from innerloop_learner.bundle import load_bundle
from innerloop_trainer.tracking import Outcome, TrackedRun, trackers

TRAIN = [
    *("train", "protonet", "--data", "digits", "--ways", 2, "--train-ways", 2, "--queries", 3, "--iterations", 4),
    *("--validate-every", 2, "--validation-episodes", 2, "--test-episodes", 2, "--calibration-episodes", 0),
    *("--backbone-set", "width=4", "--device", "cpu", "--no-report"),
]


class Listening:
    """A tracker that notes what it hears, and fails where it should."""

    heard: list[tuple[str, Any]]
    fails = ""

    def start(self, run: TrackedRun) -> None:
        self._note("start", run)

    def log(self, row: Any) -> None:
        self._note("log", row)

    def finish(self, outcome: Outcome) -> None:
        self._note("finish", outcome)

    def _note(self, what: str, said: Any) -> None:
        type(self).heard.append((what, said))
        if what == type(self).fails:
            raise ConnectionError("nobody there")


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> type[Listening]:
    """A tracker of this name that heard nothing yet."""
    kind = type("Fresh", (Listening,), {"heard": []})
    monkeypatch.setitem(trackers._entries, "listening", kind)
    return kind


def train(folder: Path, *options: object) -> Answer:
    answer = innerloop(*TRAIN, "--out", folder, *options)
    assert answer.status == 0, answer
    return answer


def test_a_tracker_hears_configuration_validations_test_and_bundle(listening: type[Listening], tmp_path: Path) -> None:
    train(tmp_path / "run", "--tracker", "listening")
    assert [what for what, _ in listening.heard] == ["start", "log", "log", "finish"]
    run, first, second, outcome = (said for _, said in listening.heard)
    assert run.name == "run"
    assert (run.settings["method"], run.settings["backbone_set.width"], run.settings["queries"]) == ("protonet", 4, 3)
    assert (first.iteration, second.iteration) == (2, 4)
    bundle = load_bundle(tmp_path / "run" / "bundle")
    assert (outcome.status, outcome.bundle, outcome.digest) == (
        "finished",
        tmp_path / "run" / "bundle",
        bundle.manifest.digest,
    )
    assert outcome.tested == bundle.manifest.metrics[-1]


@pytest.mark.parametrize("fails", ["start", "log", "finish"])
def test_a_tracker_that_fails_ends_no_run_and_is_told_once(
    fails: str, listening: type[Listening], tmp_path: Path
) -> None:
    listening.fails = fails
    answer = train(tmp_path / "run", "--tracker", "listening")
    assert answer.output.count("listening failed and hears no more of this run: ConnectionError: nobody there") == 1
    assert listening.heard[-1][0] == fails
    assert (tmp_path / "run" / "bundle").is_dir()


@pytest.mark.parametrize("wrapped", [False, True], ids=["itself", "as a cause"])
def test_a_tracker_without_room_on_its_disk_hears_of_the_validation_later(
    wrapped: bool, listening: type[Listening], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_to_a_full_disk() -> None:
        with Path("/dev/full").open("wb", buffering=0) as file:
            file.write(b"figures")

    class Full(listening):  # type: ignore[misc, valid-type]
        def log(self, row: Any) -> None:
            if row.iteration == 2 and not self.heard[1:]:
                self.heard.append(("full", row))
                try:
                    write_to_a_full_disk()
                except OSError as error:
                    if wrapped:
                        raise RuntimeError("the store failed") from error
                    raise
            super().log(row)

    monkeypatch.setitem(trackers._entries, "listening", Full)
    answer = train(tmp_path / "run", "--tracker", "listening")
    assert [what for what, _ in listening.heard] == ["start", "full", "log", "log", "finish"]
    assert [said.iteration for what, said in listening.heard if what == "log"] == [2, 4]
    assert answer.output.count("the tracker listening finds no room") == 1
    assert "hears no more" not in answer.output


def test_a_tracker_whose_disk_stays_full_hears_how_the_run_ended(
    listening: type[Listening], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(listening):  # type: ignore[misc, valid-type]
        def log(self, _: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setitem(trackers._entries, "listening", Full)
    answer = train(tmp_path / "run", "--tracker", "listening")
    assert [(what, said.status) for what, said in listening.heard[1:]] == [("finish", "finished")]
    assert answer.output.count("the tracker listening finds no room") == 1
    assert answer.output.count("hears no more of this run") == 1


def test_trackers_change_nothing_of_a_run(listening: type[Listening], tmp_path: Path) -> None:
    train(tmp_path / "tracked", "--tracker", "listening")
    train(tmp_path / "alone")
    assert (tmp_path / "tracked" / "recipe.toml").read_text() == (tmp_path / "alone" / "recipe.toml").read_text()
    tracked, alone = (load_bundle(tmp_path / name / "bundle").manifest for name in ("tracked", "alone"))
    assert tracked.files == alone.files
    assert listening.heard


def test_a_run_that_fails_is_told_as_such(listening: type[Listening], tmp_path: Path) -> None:
    mistake(*TRAIN, "--learning-rate", "1e30", "--out", tmp_path / "run", "--tracker", "listening")
    assert listening.heard[-1] == ("finish", Outcome("failed"))


def test_a_tracker_that_is_not_there_is_refused_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "unknown tracker 'x'; there are: " in mistake(*TRAIN, "--out", tmp_path / "run", "--tracker", "x")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    message = mistake(*TRAIN, "--out", tmp_path / "run", "--tracker", "mlflow")
    assert message == '--tracker mlflow needs mlflow: pip install "innerloop[mlflow]"'
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mlflow_keeps_a_run_that_is_resumed_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "digits")
    monkeypatch.chdir(tmp_path)
    train(tmp_path / "run", "--tracker", "mlflow")
    train(tmp_path / "run", "--tracker", "mlflow", "--resume")
    [run] = mlflow.search_runs(experiment_names=["digits"], output_format="list")
    bundle = load_bundle(tmp_path / "run" / "bundle").manifest
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert (run.data.params["method"], run.data.params["backbone_set.width"]) == ("protonet", "4")
    assert run.data.metrics["test_accuracy"] == bundle.metrics[-1].value
    assert run.data.tags["bundle"] == bundle.digest
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "validation")
    assert [each.step for each in history] == [2, 4]
    names = {each.path for each in mlflow.MlflowClient().list_artifacts(run.info.run_id, "bundle")}
    assert {"bundle/manifest.json", "bundle/parameters.safetensors"} <= names


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_wandb_keeps_a_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    train(tmp_path / "run", "--tracker", "wandb")
    [kept] = (tmp_path / "wandb").glob("offline-run-*")
    known = (tmp_path / "run" / "trackers" / "wandb").read_text().strip()
    assert kept.name.endswith(known)
    assert list(kept.glob("*.wandb"))

"""Checkpoints: written while training goes on, a number of them kept, and safe against a disk without room."""

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import CPU, SINUSOID, train, training

from innerloop_trainer.runs.checkpoints import Checkpoints
from innerloop_trainer.runs.folder import Progress, RunError, RunFolder
from innerloop_trainer.runs.room import UnsavedError
from innerloop_trainer.runs.training import Report


class SlowFolder(RunFolder):
    """A folder on a disk that writes when it is told to."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.may_write, self.writing = threading.Event(), 0
        self.most_at_once = 0

    def save_latest(self, *arguments: Any, **options: Any) -> None:
        self.writing += 1
        self.most_at_once = max(self.most_at_once, self.writing)
        assert self.may_write.wait(60)
        super().save_latest(*arguments, **options)
        self.writing -= 1


def test_training_goes_on_while_a_checkpoint_of_the_state_as_it_was_is_written(tmp_path: Path) -> None:
    folder = SlowFolder(tmp_path)
    folder.save_config(SINUSOID)
    checkpoints, weights = Checkpoints(folder), torch.zeros(3)
    checkpoints.save({"weights": weights}, Progress(1))
    weights += 1
    folder.may_write.set()
    checkpoints.must_be_written()
    state, progress = folder.load_latest(CPU)
    assert (state["weights"].tolist(), progress.iteration) == ([0, 0, 0], 1)


def test_at_most_one_checkpoint_is_being_written(tmp_path: Path) -> None:
    folder = SlowFolder(tmp_path)
    checkpoints = Checkpoints(folder)
    threading.Timer(0.05, folder.may_write.set).start()
    for step in range(4):
        checkpoints.save({"weights": torch.full((2,), float(step))}, Progress(step))
    checkpoints.wait()
    assert folder.most_at_once == 1
    assert folder.load_latest(CPU)[1].iteration == 3


def formers(path: Path) -> list[str]:
    return sorted(file.name for file in (path / "checkpoints").glob("step-0*.safetensors"))


def test_so_many_checkpoints_are_kept_and_no_file_of_the_user_goes(tmp_path: Path) -> None:
    folder = train(SINUSOID, tmp_path / "run", stop_at=1, keep_checkpoints=3)
    mine = [folder.path / "checkpoints" / name for name in ("step-best.safetensors", "notes.txt", "step-00000002.bak")]
    for file in mine:
        file.parent.mkdir(exist_ok=True)
        file.write_text("mine")
    train(SINUSOID, folder.path, resume=True, save_minutes=0, keep_checkpoints=3)
    assert formers(folder.path) == ["step-00000010.safetensors", "step-00000011.safetensors"]
    assert all(file.read_text() == "mine" for file in mine)
    assert folder.load_latest(CPU)[1].iteration == 12
    train(SINUSOID, tmp_path / "one", save_minutes=0, keep_checkpoints=1)
    assert not (tmp_path / "one" / "checkpoints").exists()


def test_a_former_checkpoint_takes_the_place_of_a_damaged_one(tmp_path: Path) -> None:
    folder = train(SINUSOID, tmp_path / "run")
    latest = folder.path / "latest.safetensors"
    latest.write_bytes(latest.read_bytes()[:-5])
    former = folder.path / "checkpoints" / "step-00000010.safetensors"
    with pytest.raises(RunError, match=f"is damaged .*; copy {former} over it to go on from there"):
        training(SINUSOID, folder.path, resume=True)
    latest.write_bytes(former.read_bytes())
    assert training(SINUSOID, folder.path, resume=True).progress.iteration == 10


def test_checkpoints_are_kept_where_files_have_one_name_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("os.link", no_links)
    folder = RunFolder(tmp_path)
    for step in (1, 2):
        folder.save_latest({"weights": torch.zeros(1)}, Progress(step), keep=2)
    assert formers(tmp_path) == ["step-00000001.safetensors"]


def test_a_disk_without_room_for_a_checkpoint_stops_no_training_and_the_user_hears_of_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, notices = training(SINUSOID, tmp_path / "run", save_minutes=0), list[str]()
    full = {"from": 2, "to": 6}
    save = RunFolder.save_latest

    def on_a_small_disk(folder: RunFolder, state: Any, progress: Progress, **options: Any) -> None:
        if full["from"] <= progress.iteration < full["to"]:
            assert folder.load_latest(CPU)[1].iteration == 1
            raise OSError(errno.ENOSPC, "No space left on device")
        save(folder, state, progress, **options)

    def listen(report: Report) -> None:
        notices.extend([report.notice] if report.notice else [])

    monkeypatch.setattr(RunFolder, "save_latest", on_a_small_disk)
    assert run.run(listen, lambda: False)
    assert len(notices) == 1
    assert "the run could not be saved" in notices[0]
    assert "No space left on device" in notices[0]
    assert run.folder.load_latest(CPU)[1].iteration == 12


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, r"No space left on device\); make room, and go on"),
        (errno.EACCES, r"Permission denied\); mend that, and go on"),
    ],
    ids=["full", "forbidden"],
)
def test_a_run_whose_end_can_not_be_saved_fails_and_leaves_the_last_good_checkpoint(
    number: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, save = training(SINUSOID, tmp_path / "run", save_minutes=0), RunFolder.save_latest

    def refused_in_the_end(folder: RunFolder, state: Any, progress: Progress, **options: Any) -> None:
        if progress.iteration > 10:
            raise OSError(number, os.strerror(number))
        save(folder, state, progress, **options)

    monkeypatch.setattr(RunFolder, "save_latest", refused_in_the_end)
    with pytest.raises(UnsavedError, match=message):
        run.run(lambda _: None, lambda: False)
    assert run.folder.load_latest(CPU)[1].iteration == 10


def test_a_run_that_ended_before_anything_was_saved_may_begin_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.save_config(SINUSOID)
    assert not folder.has_checkpoint
    train(SINUSOID, folder.path)
    assert folder.has_checkpoint
    with pytest.raises(RunError, match="holds a run already"):
        training(SINUSOID, folder.path)

"""Replacing files and folders, with faults at the worst moments."""

import errno
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import CASES

from innerloop_learner.bundle import load_bundle, save_bundle
from innerloop_learner.disk import replace_file, replace_files, write_folder
from innerloop_learner.manifest import BundleError, Manifest, Provenance, TaskLimits

OLD, NEW = {"leader": b"old", "a": b"old a", "b": b"old b"}, {"leader": b"new", "a": b"new a", "c": b"new c"}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_appears_whole_where_nothing_or_an_empty_one_was(tmp_path: Path) -> None:
    write_folder(tmp_path / "deep" / "folder", OLD)
    (tmp_path / "empty").mkdir()
    write_folder(tmp_path / "empty", OLD)
    assert content(tmp_path / "deep" / "folder") == content(tmp_path / "empty") == OLD
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["folder"]


def test_a_folder_is_never_written_over_another(tmp_path: Path) -> None:
    write_folder(tmp_path / "folder", OLD)
    with pytest.raises(OSError, match="not empty"):
        write_folder(tmp_path / "folder", NEW)
    assert content(tmp_path / "folder") == OLD
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_files_are_replaced_and_all_others_stay(tmp_path: Path) -> None:
    write_folder(tmp_path / "v1", {**OLD, "README.md": b"mine"})
    (tmp_path / "v1" / "notes").mkdir()
    (tmp_path / "current").symlink_to("v1")
    replace_files(tmp_path / "current", NEW, "leader")
    assert (tmp_path / "current").is_symlink()
    assert (tmp_path / "v1" / "notes").is_dir()
    (tmp_path / "v1" / "notes").rmdir()
    assert content(tmp_path / "v1") == {**OLD, **NEW, "README.md": b"mine"}


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "no space left"), KeyboardInterrupt()], ids=["full", "Ctrl-C"])
def test_a_full_disk_or_ctrl_c_leaves_the_old_content(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "folder", OLD)
    replace_file(tmp_path / "file", b"old")

    def fail(self: Path, *_: str) -> Any:
        if self.name in ("a", ".file.new"):
            raise error
        return opened(self, *_)

    opened = Path.open
    monkeypatch.setattr(Path, "open", fail)
    for write in (
        lambda: replace_files(tmp_path / "folder", NEW, "leader"),
        lambda: write_folder(tmp_path / "other", NEW),
        lambda: replace_file(tmp_path / "file", b"new"),
    ):
        with pytest.raises(type(error)):
            write()
    monkeypatch.undo()
    assert content(tmp_path / "folder") == OLD
    assert (tmp_path / "file").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


KILLED = """
import itertools, json, os, sys
from pathlib import Path
from innerloop_learner import disk

def version(folder):
    leader = (folder / "leader").read_text()
    for name in {"old": "ab", "new": "ac"}[leader]:
        places = [place / name for place in (folder, folder / disk.INCOMING)]
        assert f"{leader} {name}" in [place.read_text() for place in places if place.exists()], (leader, name)
    return leader

def dying(number):
    steps = itertools.count(1)
    def watched(call):
        def step(*arguments):
            if next(steps) == number:
                os._exit(9)  # as kill -9 would: nothing is tidied up
            return call(*arguments)
        return step
    for owner, name in [(os, "fsync"), (Path, "rename"), (Path, "unlink"), (Path, "mkdir"), (Path, "rmdir")]:
        setattr(owner, name, watched(getattr(owner, name)))

for number in itertools.count(1):
    folder = Path(sys.argv[1]) / str(number)
    disk.write_folder(folder, {"leader": b"old", "a": b"old a", "b": b"old b"})
    new = {"leader": b"new", "a": b"new a", "c": b"new c"}
    child = os.fork()
    if not child:
        dying(number)
        disk.replace_files(folder, new, "leader")
        os._exit(0)
    killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    print(version(folder))
    disk.replace_files(folder, new, "leader")
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b", "c", "leader"] and version(folder) == "new"
    if not killed:
        break
"""


def test_a_process_killed_at_any_step_leaves_the_old_files_or_the_new_ones_and_the_next_tidies_up(
    tmp_path: Path,
) -> None:
    result = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    left = result.stdout.split()
    assert left == sorted(left, reverse=True), "old before the one step that decides, new behind it"
    assert set(left) == {"old", "new"}
    assert len(left) > 10


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    replace_file(tmp_path / "deep" / "file", b"one")
    replace_file(tmp_path / "deep" / "file", b"two")
    assert content(tmp_path / "deep") == {"file": b"two"}


def test_a_reader_meets_the_old_bundle_or_the_new_one_or_is_told(tmp_path: Path) -> None:
    case = CASES[0]
    limits, provenance = TaskLimits(3, 1, 2, 4, 20), Provenance("none", 0, 0, "", {})

    def write(seed: int) -> None:
        params = case.learner.init(torch.Generator().manual_seed(seed))
        save_bundle(tmp_path / "model", Manifest(str(seed), case.spec, limits, provenance), params)

    expected = [case.learner.init(torch.Generator().manual_seed(seed))["head.weight"] for seed in (0, 1)]
    write(0)
    stop = threading.Event()

    def write_on() -> None:
        while not stop.is_set():
            for seed in (1, 0):
                write(seed)

    writer = threading.Thread(target=write_on)
    writer.start()
    met: Counter[str] = Counter()
    deadline = time.monotonic() + 60
    try:
        while min(met["0"], met["1"]) < 20 and time.monotonic() < deadline:
            try:
                bundle = load_bundle(tmp_path / "model")
            except BundleError:
                continue
            met[bundle.manifest.name] += 1
            assert torch.equal(bundle.params["head.weight"], expected[int(bundle.manifest.name)])
    finally:
        stop.set()
        writer.join()
    assert min(met["0"], met["1"]) >= 20

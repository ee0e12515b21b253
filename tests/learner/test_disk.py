"""Replacing files and folders, with faults at the worst moments."""

import errno
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from cases import CASES

from innerloop_learner.bundle import load_bundle, save_bundle
from innerloop_learner.disk import replace_file, replace_folder
from innerloop_learner.manifest import BundleError, Manifest, Provenance, TaskLimits

OLD, NEW = {"a": b"old a", "b": b"old b"}, {"a": b"new a", "c": b"new c"}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@contextmanager
def failing_rename(number: int, error: BaseException) -> Iterator[None]:
    """Make the given rename fail, counted from 1."""
    rename, calls = Path.rename, []

    def fail(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == number:
            raise error
        return rename(self, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "rename", fail)
        yield


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    replace_folder(tmp_path / "deep" / "folder", OLD)
    assert content(tmp_path / "deep" / "folder") == OLD
    replace_folder(tmp_path / "deep" / "folder", NEW)
    assert content(tmp_path / "deep" / "folder") == NEW
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["folder"]


def test_a_folder_behind_a_link_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    replace_folder(tmp_path / "v1", OLD)
    (tmp_path / "current").symlink_to("v1")
    replace_folder(tmp_path / "current", NEW)
    assert (tmp_path / "current").is_symlink()
    assert content(tmp_path / "v1") == NEW
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("number", [1, 2], ids=["moving the old aside", "putting the new in place"])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken disk"), KeyboardInterrupt()], ids=["fault", "Ctrl-C"])
def test_a_move_that_fails_leaves_the_old_folder(number: int, error: BaseException, tmp_path: Path) -> None:
    replace_folder(tmp_path / "folder", OLD)
    with failing_rename(number, error), pytest.raises(type(error)):
        replace_folder(tmp_path / "folder", NEW)
    assert content(tmp_path / "folder") == OLD
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_full_disk_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_folder(tmp_path / "folder", OLD)
    replace_file(tmp_path / "file", b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        replace_folder(tmp_path / "folder", NEW)
    with pytest.raises(OSError, match="no space left"):
        replace_file(tmp_path / "file", b"new")
    assert content(tmp_path / "folder") == OLD
    assert (tmp_path / "file").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


KILLED = """
import os, sys
from pathlib import Path
from innerloop_learner.disk import replace_folder

rename, calls = Path.rename, []

def die(self, target):
    calls.append(target)
    if len(calls) == 2:
        os._exit(9)  # as kill -9 would: nothing is tidied up
    return rename(self, target)

Path.rename = die
replace_folder(Path(sys.argv[1]), {"a": b"new a", "c": b"new c"})
"""


def test_a_process_killed_between_the_moves_leaves_both_folders_whole(tmp_path: Path) -> None:
    replace_folder(tmp_path / "folder", OLD)
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "folder")], check=False).returncode == 9
    (old,) = tmp_path.glob(".folder.old-*")
    (new,) = tmp_path.glob(".folder.new-*")
    assert (content(old), content(new)) == (OLD, NEW)
    replace_folder(tmp_path / "folder", NEW)
    assert content(tmp_path / "folder") == NEW


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

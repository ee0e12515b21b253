"""Writes files so that a crash or a full disk never leaves a half-written file in the place of a good one."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

INCOMING = ".innerloop-incoming"
"""Folder in which `replace_files` puts new files before they take their places."""


def replace_file(path: Path, content: bytes) -> None:
    """Write a file. Readers find either all of the old content or all of the new, after a crash too.

    Raises:
        OSError: the file can't be written. The old content is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.new")
    try:
        _write(scratch, content)
        scratch.replace(path)
        sync_folder(path.parent)
    finally:
        scratch.unlink(missing_ok=True)


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a new folder, which appears with all its files at once.

    Args:
        path: the folder to write; it must be missing or empty.
        files: content of each file, by file name.

    Raises:
        OSError: the folder can't be written, or it exists and is not empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{path.name}.new-", dir=path.parent))
    try:
        new.chmod(0o755)
        for name, content in files.items():
            _write(new / name, content)
        sync_folder(new)
        new.rename(path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def replace_files(folder: Path, files: Mapping[str, bytes], leader: str) -> None:
    """Replace some files of a folder together, and leave all other files alone.

    All new files are first written to the subfolder `.innerloop-incoming`; then the leader moves to its place. That one
    move decides. After a crash before the move, the old files are valid. After a crash behind it, the new files are
    valid, and some of them may still lie in the subfolder: readers take the leader from `folder`, and look for the
    others in `folder` and in the subfolder. The next replacement removes what a crash has left.

    Args:
        folder: the folder that holds the files; it must exist.
        files: new content of each file, by file name.
        leader: name of the file that lists the others, such as a bundle's manifest.

    Raises:
        OSError: the files can't be written. The old files are still valid, unless the leader has moved already.
    """
    _settle(folder, leader)
    incoming = folder / INCOMING
    incoming.mkdir()
    try:
        # While the leader lies in the subfolder, the old files are valid, so the leader is removed first.
        for name in sorted(files, key=lambda name: name != leader):
            _write(incoming / name, files[name])
            sync_folder(incoming)
        (incoming / leader).rename(folder / leader)
        sync_folder(folder)
    finally:
        _settle(folder, leader)


def _settle(folder: Path, leader: str) -> None:
    """Finish a replacement: move the new files to their places if the leader has moved, or else remove them."""
    incoming = folder / INCOMING
    if not incoming.is_dir():
        return
    decided = not (incoming / leader).exists()
    for file in sorted(incoming.iterdir(), key=lambda file: file.name == leader):
        if decided:
            file.rename(folder / file.name)
        else:
            file.unlink()
    incoming.rmdir()
    sync_folder(folder)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Make renames in a folder survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

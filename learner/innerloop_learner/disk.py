"""Writing so that a crash or a full disk never leaves half of something in place of what was there."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

INCOMING = ".innerloop-incoming"
"""Folder in which `replace_files` puts new files before they take their places."""


def replace_file(path: Path, content: bytes) -> None:
    """Write a file; readers, and a run after a crash, find the old content or the new, whole.

    Raises:
        OSError: it can't be written; what was there is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.new")
    try:
        _write(scratch, content)
        scratch.replace(path)
        _sync_folder(path.parent)
    finally:
        scratch.unlink(missing_ok=True)


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder where there is none, or an empty one; it appears with all its files at once.

    Args:
        path: of the folder.
        files: content by name.

    Raises:
        OSError: it can't be written, or something is there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{path.name}.new-", dir=path.parent))
    try:
        new.chmod(0o755)
        for name, content in files.items():
            _write(new / name, content)
        _sync_folder(new)
        new.rename(path)
        _sync_folder(path.parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def replace_files(folder: Path, files: Mapping[str, bytes], leader: str) -> None:
    """Replace some files of a folder together, and leave all others alone.

    All new files are on disk, in `folder/.innerloop-incoming`, before the leader moves to its place. That one move
    decides: after a crash before it the old files count, after a crash behind it the new ones, some of which may still
    lie in that folder. Readers take the leader from `folder`, and follow it to files there or in that folder. The next
    replacement tidies up what a crash has left.

    Args:
        folder: that holds them, there already.
        files: new content by name.
        leader: name of the file that tells which of the others belong to it.

    Raises:
        OSError: they can't be written; what was there still counts, unless the leader has moved already.
    """
    _settle(folder, leader)
    incoming = folder / INCOMING
    incoming.mkdir()
    try:
        # As long as the leader is in there, nothing is decided; so it comes first.
        for name in sorted(files, key=lambda name: name != leader):
            _write(incoming / name, files[name])
            _sync_folder(incoming)
        (incoming / leader).rename(folder / leader)
        _sync_folder(folder)
    finally:
        _settle(folder, leader)


def _settle(folder: Path, leader: str) -> None:
    """Bring a replacement to its end: the new files to their places if it was decided, or away."""
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
    _sync_folder(folder)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    """Make renames in a folder survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

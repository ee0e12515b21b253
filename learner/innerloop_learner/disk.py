"""Writing so that a crash or a full disk never leaves half of something in place of what was there."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path


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


def replace_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder, in place of one that may be there.

    The new folder is complete and on disk before the old one is moved aside and the new one takes its place. Between
    these two moves there is nothing at `path` for a moment, and a reader that opens several files may find one of the
    old folder and one of the new: readers must check that files belong together. A crash at that moment leaves both
    folders beside `path`, whole, as `.NAME.old-*` and `.NAME.new-*`.

    Args:
        path: of the folder.
        files: content by name.

    Raises:
        OSError: it can't be written; what was there is still there.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{path.name}.new-", dir=path.parent))
    try:
        new.chmod(0o755)
        for name, content in files.items():
            _write(new / name, content)
        _sync_folder(new)
        _put_in_place(new, path)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _put_in_place(new: Path, path: Path) -> None:
    if not path.exists():
        new.rename(path)
        _sync_folder(path.parent)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old-", dir=path.parent))
    try:
        path.rename(old)
        new.rename(path)
    except BaseException:  # Ctrl-C between the two moves is one of them
        if not path.exists():
            old.rename(path)
        else:
            shutil.rmtree(old, ignore_errors=True)
        raise
    _sync_folder(path.parent)
    shutil.rmtree(old)


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

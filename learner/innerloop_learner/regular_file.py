"""Reads files that others wrote: regular files only, and no more of them than was agreed."""

import os
import stat
from pathlib import Path
from typing import BinaryIO


class UnusableFileError(OSError):
    """A path leads to something else than a regular file, or to one that is too large."""


def read_regular_file(path: Path, most: int) -> bytes:
    """Read a file, or what a link leads to. A named pipe, a device or an endless file never holds up the reader.

    Args:
        path: path of the file.
        most: most bytes that it may have.

    Raises:
        UnusableFileError: it is no regular file, or it has more bytes; the message is to follow the file's name.
        OSError: it can't be read.
    """
    with open_regular_file(path, most) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise UnusableFileError(f"is larger than {most:,} bytes")
    return content


def open_regular_file(path: Path, most: int) -> BinaryIO:
    """Open a file, or what a link leads to, to be read; arguments and errors are those of `read_regular_file`."""
    # Opening may already wait or act on a device, so the path is looked at first; it may be replaced before it is
    # opened, so the open file is looked at again.
    _check(path.stat(), most)
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    try:
        _check(os.fstat(file.fileno()), most)
    except UnusableFileError:
        file.close()
        raise
    return file


def _check(found: os.stat_result, most: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise UnusableFileError("is no regular file")
    if found.st_size > most:
        raise UnusableFileError(f"is larger than {most:,} bytes")

"""Files that are read again when they change."""

from collections.abc import Callable
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import structlog

T = TypeVar("T")


class UnusableFileError(ValueError):
    """A file that can't be read, or does not hold what it should; its content is not in the message."""


class Stamp(NamedTuple):
    """What changes when a file is replaced or written to."""

    modified: int
    size: int
    inode: int


def stamp_of(file: Path) -> Stamp | None:
    """The stamp of a file; None if there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return Stamp(found.st_mtime_ns, found.st_size, found.st_ino)


class FollowedFile(Generic[T]):
    """What a file says, read again when it changes.

    Args:
        file: its path.
        read: makes a value of its content, or raises UnusableFileError.
        what: names it in the log.

    Attributes:
        value: what the file said when it was last read and could be used.

    Raises:
        UnusableFileError: it can't be used.
    """

    def __init__(self, file: Path, read: Callable[[bytes], T], what: str) -> None:
        self._file, self._read, self._what = file, read, what
        self._read_at = self._seen = stamp_of(file)
        self.value = self._content()

    def look(self) -> None:
        """Read the file if it has changed; one that can't be used changes nothing.

        It is read once two looks have found it alike, so that a file that is being written is not read half.
        """
        before, self._seen = self._seen, stamp_of(self._file)
        if self._seen == self._read_at or self._seen != before:
            return
        self._read_at = self._seen
        try:
            self.value = self._content()
        except UnusableFileError as error:
            structlog.get_logger().error(f"{self._what} changed and can't be used", reason=str(error))
        else:
            structlog.get_logger().info(f"{self._what} read again")

    def _content(self) -> T:
        try:
            content = self._file.read_bytes()
        except OSError as error:
            raise UnusableFileError(f"can't read {self._file} ({error.strerror})") from error
        try:
            return self._read(content)
        except UnusableFileError as error:
            raise UnusableFileError(f"{self._file} {error}") from error

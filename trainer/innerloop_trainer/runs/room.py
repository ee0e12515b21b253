"""What is said where the disk has no room for the files of a run."""

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

AGAIN = "--resume writes it"
"""What to do once there is room, where a run has a checkpoint."""


class UnsavedError(OSError):
    """Files of a run could not be written; the message says which, and how the run goes on once there is room.

    It is an error of the file system, and none of the run's settings: a study of several runs ends by it.
    """


def no_room(error: BaseException) -> bool:
    """Whether an error, or what it was raised from, says that a disk, a quota or a SQLite database on it is full.

    >>> no_room(OSError(errno.ENOSPC, "No space left on device")), no_room(OSError(errno.EACCES, "Permission denied"))
    (True, False)
    """
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return True
    return error.__cause__ is not None and no_room(error.__cause__)


@contextmanager
def saving(what: str, run: Path, then: str = AGAIN) -> Iterator[None]:
    """A context that writes a file of a run as a whole.

    Args:
        what: what is written, for the message.
        run: folder of the run.
        then: what to do once there is room, for the message.

    Raises:
        UnsavedError: there is no room for it.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, UnsavedError) or not no_room(error):
            raise
        raise UnsavedError(f"{what} of {run} could not be written ({error.strerror}); make room, and {then}") from error

"""A folder that is received file by file, and is there under its name only once all of it has come."""

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from innerloop.errors import InternalError, InvalidArgumentError
from innerloop.predict_script import SCRIPT, SCRIPT_NAME

FILES = frozenset({"adaptation.json", "state.npz", "predict.onnx"})
"""Names of the files that a server sends. It can write no others, whatever it is."""


class IncomingFolder:
    """Files of a download, which are written beside their folder first; a context manager that removes what is left.

    Args:
        path: of the folder, which must not be there yet.

    Raises:
        InvalidArgumentError: it is there, or can't be made.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        try:
            self._path = Path(path).absolute()
            if b"\0" in os.fsencode(self._path):
                raise ValueError("no path has such a character")
        except (TypeError, ValueError) as error:
            raise InvalidArgumentError(f"path must name a folder, not {path!r}") from error
        if os.path.lexists(self._path):
            raise InvalidArgumentError(f"{path} is there already, and is not overwritten; name another folder")
        self._incoming = self._path.with_name(f".{self._path.name}.{uuid.uuid4().hex[:12]}")
        self._files: IncomingFiles | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._clear()

    def begin(self) -> "IncomingFiles":
        """What takes the files of an attempt; those of attempts before are removed."""
        self._clear()
        with writing(self._path):
            self._incoming.mkdir()
        self._files = IncomingFiles(self._incoming)
        return self._files

    def finish(self) -> None:
        """Give the folder its name.

        Raises:
            InternalError: not all has come.
            InvalidArgumentError: there is something of that name by now.
        """
        if self._files is not None:
            self._files.finish()
        with writing(self._path):
            (self._incoming / SCRIPT_NAME).write_text(SCRIPT, "utf-8")
            if os.path.lexists(self._path):
                raise InvalidArgumentError(f"{self._path} is there by now, and is not overwritten; name another folder")
            self._incoming.rename(self._path)

    def _clear(self) -> None:
        if self._files is not None:
            self._files.close()
        shutil.rmtree(self._incoming, ignore_errors=True)


class IncomingFiles:
    """Takes the files of one attempt.

    Args:
        folder: to write them into.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._missing = set(FILES)
        self._file: BinaryIO | None = None
        self._announced: Any = None
        self._left = 0
        self._digest = hashlib.sha256()

    def take(self, message: Any) -> None:
        """Take a message: a file begins, or goes on.

        Raises:
            InternalError: it is none that a server sends, or what came is not what was announced.
            InvalidArgumentError: it can't be written.
        """
        if message.WhichOneof("content") == "file":
            self._end_file()
            self._begin_file(message.file)
            return
        self._left -= len(message.chunk)
        if self._file is None or self._left < 0:
            raise damaged("more came than was announced")
        self._digest.update(message.chunk)
        with writing(self._folder):
            self._file.write(message.chunk)

    def finish(self) -> None:
        """Check that all files have come."""
        self._end_file()
        if self._missing:
            raise damaged(f"{', '.join(sorted(self._missing))} did not come")

    def close(self) -> None:
        """Close the file that is being written."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin_file(self, announced: Any) -> None:
        if announced.name not in self._missing:
            raise damaged(f"a file {announced.name[:100]!r} came that does not belong to it")
        self._missing.remove(announced.name)
        self._announced, self._left, self._digest = announced, announced.size_bytes, hashlib.sha256()
        with writing(self._folder):
            self._file = (self._folder / announced.name).open("xb")

    def _end_file(self) -> None:
        if self._file is None:
            return
        with writing(self._folder):
            self.close()
        if self._left or self._digest.digest() != self._announced.digest:
            raise damaged(f"{self._announced.name} is not what was announced")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say of files that can't be written why."""
    try:
        yield
    except OSError as error:
        raise InvalidArgumentError(f"{path} can't be written: {error.strerror or error}") from error


def damaged(why: str) -> InternalError:
    """The error of a download that is not what a server sends."""
    return InternalError(f"the download is damaged: {why}; try again")

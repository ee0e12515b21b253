"""The folder of a demo, which holds what earlier demos wrote and nothing else that a new one would replace."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

RECORD = "written-by-demo.json"


class FolderTakenError(ValueError):
    """A folder that holds files which the demo did not write; the message names one and says what to do."""


class DemoFolder:
    """The folder that the demo writes to.

    A record lists every file with its SHA-256, so that the next demo replaces these files and refuses any other, a file
    that was edited since among them.

    Args:
        path: the folder; need not be there yet.

    Attributes:
        run: folder of the training run.
        models: folder of models to serve; others may be put beside the demo's.
        bundle: the demo's model.
        task: folder of the images of one task.
        picture: PNG of that task and the answers.
        answers: CSV of the answers to queries about the user's own files.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._record = path / RECORD
        self.run = path / "run"
        self.models = path / "models"
        self.bundle = self.models / "demo"
        self.task = path / "task"
        self.picture = path / "demo.png"
        self.answers = path / "answers.csv"

    def clear(self) -> None:
        """Remove what an earlier demo wrote.

        Raises:
            FolderTakenError: the folder is not a demo's, or a file that would be removed is not; nothing was removed.
        """
        written = self._written()
        if written is None and self._path.exists() and (not self._path.is_dir() or any(self._path.iterdir())):
            raise FolderTakenError(
                f"{self._path} is no folder of a demo, and the demo replaces files; name a folder that is empty or not "
                "there yet"
            )
        files = list(self._replaced())
        for file in files:
            if written is None or written.get(self._name(file)) != _digest(file):
                raise FolderTakenError(
                    f"{file} was not written by the demo, or was changed since; move it, or name another folder"
                )
        for file in files:
            file.unlink()
            self._remove_empty_parents(file)

    def record(self) -> None:
        """Record which files the demo has written, if it has come that far."""
        digests = {self._name(file): _digest(file) for file in self._replaced()}
        if self._path.exists():
            self._record.write_text(json.dumps(digests, indent=1) + "\n")

    def _written(self) -> dict[str, str] | None:
        """Digests of the files that the last demo wrote, by name; None where there is no readable record."""
        try:
            written = json.loads(self._record.read_text())
        except (OSError, ValueError):
            return None
        return written if isinstance(written, dict) else None

    def _replaced(self) -> Iterator[Path]:
        """The files that are there now and that a demo replaces."""
        for part in (self.run, self.bundle, self.task, self.picture, self.answers):
            entries = sorted(part.rglob("*")) if part.is_dir() else [part]
            yield from (entry for entry in entries if entry.is_file() or entry.is_symlink())

    def _name(self, file: Path) -> str:
        return file.relative_to(self._path).as_posix()

    def _remove_empty_parents(self, file: Path) -> None:
        for folder in file.parents:
            if folder == self._path or any(folder.iterdir()):
                break
            folder.rmdir()


def _digest(file: Path) -> str:
    """The SHA-256 of a file; of a link, which the demo never writes, nothing."""
    return "" if file.is_symlink() else hashlib.sha256(file.read_bytes()).hexdigest()

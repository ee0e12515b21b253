"""A study on disk, which several processes may share."""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from innerloop_learner.disk import replace_file
from innerloop_trainer.config import ConfigError


class TuningError(ConfigError):
    """A study can't go on; the message says why and what to do."""


class TuningFolder:
    """Files of one study.

    Args:
        path: path of the folder, which is made when something is saved.

    Attributes:
        journal: Optuna's record of all trials.
        results: JSON file of the trials that ended, the best of them, and its figure on test classes.
        best: recipe of the best trial so far.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = path / "journal.log"
        self.results = path / "trials.json"
        self.best = path / "best.toml"
        self._config = path / "tuning.json"
        self._trials = path / "trials"

    @property
    def exists(self) -> bool:
        """Whether a study was started here."""
        return self._config.is_file()

    def trial(self, number: int) -> Path:
        """Folder of the run of a trial."""
        return self._trials / str(number)

    def check(self, *, resume: bool) -> None:
        """Check early that a new study can start here, or that the study that is here can be joined.

        Raises:
            TuningError: the folder holds a study that was not to be joined, no study to join, or other files.
        """
        if resume and not self.exists:
            raise TuningError(f"{self.path} holds no study; leave --resume out to start one")
        if not resume and self.exists:
            raise TuningError(f"{self.path} holds a study already; join it with --resume, or name another folder")
        if not resume and self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise TuningError(f"{self.path} holds something else; name a folder that is empty or not there yet")

    def save_config(self, config: Mapping[str, Any]) -> None:
        """Record what is tuned."""
        replace_file(self._config, (json.dumps(config, indent=2) + "\n").encode())

    def load_config(self) -> Any:
        """What is tuned, as recorded.

        Raises:
            TuningError: the record is damaged.
        """
        try:
            return json.loads(self._config.read_text())
        except (OSError, ValueError) as error:
            raise TuningError(f"{self._config} can't be read ({error}); tune again in another folder") from error

    @contextmanager
    def alone(self) -> Iterator[None]:
        """A context that one process is in at a time."""
        self._trials.mkdir(parents=True, exist_ok=True)
        with (self._trials / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def take(self, number: int) -> TextIO | None:
        """Take a trial for this process, until the returned file is closed or the process ends.

        Returns:
            None if another process has it.
        """
        file = (self._trials / f"{number}.lock").open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        return file

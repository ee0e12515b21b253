"""A search on disk: its configuration, what it tried, and the best of it."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from innerloop_learner.disk import replace_file
from innerloop_trainer.search.searchers import SearchError


@dataclass(frozen=True)
class Tried:
    """An architecture that was trained.

    Attributes:
        trial: number of the trial, from 1.
        architecture: option that is taken in each choice of the space, by name.
        accuracy: accuracy on validation tasks; 0 if training diverged.
        confidence_interval: half width of the 95% confidence interval of the accuracy.
        multiply_adds: multiplications, each with an addition, to embed one example.
        parameters: number of parameters of the backbone.
        seconds: time that it was trained for.
        failure: why there is no accuracy; empty if there is.
    """

    trial: int
    architecture: Mapping[str, Any]
    accuracy: float
    confidence_interval: float
    multiply_adds: int
    parameters: int
    seconds: float
    failure: str = ""


class SearchFolder:
    """Files of one search.

    Args:
        path: path of the folder, which is made when something is saved.

    Attributes:
        tried: JSON lines, one for each architecture that was trained.
        best: JSON file of the best architecture so far, as settings of a backbone.
        supernet: folder of the run that is trained before the first trial, if the searcher needs one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tried = path / "tried.jsonl"
        self.best = path / "best.json"
        self.supernet = path / "supernet"
        self._config = path / "search.json"

    @property
    def exists(self) -> bool:
        """Whether a search was started here."""
        return self._config.is_file()

    def trial(self, number: int) -> Path:
        """Folder of the run of a trial, while it is trained."""
        return self.path / f"trial-{number}"

    def check(self, *, resume: bool) -> None:
        """Check early that a new search can start here, or that the search that is here can be resumed.

        Raises:
            SearchError: the folder holds a search that was not to be resumed, no search to resume, or other files.
        """
        if resume and not self.exists:
            raise SearchError(f"{self.path} holds no search; leave --resume out to start one")
        if not resume and self.exists:
            raise SearchError(f"{self.path} holds a search already; continue it with --resume, or name another folder")
        if not resume and self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise SearchError(f"{self.path} holds something else; name a folder that is empty or not there yet")

    def save_config(self, config: Mapping[str, Any]) -> None:
        """Record the configuration of the search."""
        _write(self._config, config)

    def load_config(self) -> dict[str, Any]:
        """The recorded configuration.

        Raises:
            SearchError: it is damaged.
        """
        try:
            config: dict[str, Any] = json.loads(self._config.read_text())
        except (OSError, ValueError) as error:
            raise SearchError(f"{self._config} can't be read ({error}); search again in another folder") from error
        return config

    def append(self, tried: Tried) -> None:
        """Record what was tried, so that it stays even if the machine dies now."""
        with self.tried.open("a") as file:
            file.write(json.dumps(asdict(tried)) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> list[Tried]:
        """What was tried so far.

        A last line that a crash cut short is removed from the file; its trial has to be finished again.

        Raises:
            SearchError: another line is damaged.
        """
        if not self.tried.is_file():
            return []
        *lines, rest = self.tried.read_text().split("\n")
        if rest:
            replace_file(self.tried, "".join(f"{line}\n" for line in lines).encode())
        try:
            return [Tried(**json.loads(line)) for line in lines]
        except (TypeError, ValueError) as error:
            raise SearchError(f"{self.tried} is damaged ({error}); search again in another folder") from error

    def save_best(self, best: Mapping[str, Any]) -> None:
        """Record the best architecture."""
        _write(self.best, best)


def _write(path: Path, content: Mapping[str, Any]) -> None:
    replace_file(path, (json.dumps(content, indent=2) + "\n").encode())

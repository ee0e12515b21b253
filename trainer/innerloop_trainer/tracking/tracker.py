"""What a tracker is told of a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from innerloop_learner.disk import replace_file
from innerloop_learner.manifest import Metric
from innerloop_learner.registry import Registry
from innerloop_trainer.runs.log import Row


@dataclass(frozen=True)
class TrackedRun:
    """A run that begins or goes on.

    Attributes:
        name: name of the run's folder.
        folder: folder of the run.
        settings: settings of its recipe by name; those of tables with a dot, as `set.rate`.
    """

    name: str
    folder: Path
    settings: Mapping[str, Any]

    def known_id(self, tracker: str) -> str | None:
        """The id under which a tracker knows the run, if it was told of it before."""
        file = self._id_file(tracker)
        return file.read_text().strip() or None if file.is_file() else None

    def keep_id(self, tracker: str, run_id: str) -> None:
        """Keep the id under which a tracker knows the run, so that it goes on there when it is resumed."""
        replace_file(self._id_file(tracker), f"{run_id}\n".encode())

    def _id_file(self, tracker: str) -> Path:
        return self.folder / "trackers" / tracker


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        status: "finished"; "stopped", to be resumed; or "failed".
        tested: its figure on test classes, if it finished.
        bundle: folder of its bundle, if it finished.
        digest: digest of the bundle; empty if there is none.
    """

    status: Literal["finished", "stopped", "failed"]
    tested: Metric | None = None
    bundle: Path | None = None
    digest: str = ""


class Tracker(Protocol):
    """Something that is told of a run. What it raises ends no run.

    Trackers are made without arguments; where they send things is theirs to find out, by variables of the environment
    for example. Making one raises ModuleNotFoundError if its library is not installed.
    """

    def start(self, run: TrackedRun) -> None:
        """A run begins, or goes on where `run` knows an id."""

    def log(self, row: Row) -> None:
        """A validation, with the figures of training since the one before."""

    def finish(self, outcome: Outcome) -> None:
        """The run ended, or was stopped."""


trackers: Registry[type[Tracker]] = Registry("tracker", "innerloop.trackers", "innerloop_trainer.tracking")


def figures_of(row: Row) -> dict[str, float]:
    """The figures of a validation by name."""
    return {name: value for name, value in vars(row).items() if name != "iteration"}


def figures_of_test(metric: Metric) -> dict[str, float]:
    """The figures on test classes by name."""
    return {f"test_{metric.name}": metric.value, f"test_{metric.name}_interval": metric.confidence_interval}

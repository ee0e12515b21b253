"""Weights & Biases (wandb.ai): WANDB_PROJECT, WANDB_MODE=offline and other variables of its own say where."""

from importlib import import_module
from typing import Any

from innerloop_trainer.runs.log import Row
from innerloop_trainer.tracking.tracker import Outcome, TrackedRun, figures_of, figures_of_test, trackers

NAME = "wandb"


@trackers.register(NAME)
class WandbTracker:
    """A run of Weights & Biases: configuration, figures of each validation, figures on test classes, and the bundle."""

    def __init__(self) -> None:
        self._wandb: Any = import_module("wandb")
        self._run: Any = None

    def start(self, run: TrackedRun) -> None:
        """See the method of `Tracker`."""
        self._run = self._wandb.init(
            id=run.known_id(NAME), resume="allow", name=run.name, config=dict(run.settings), reinit="finish_previous"
        )
        run.keep_id(NAME, self._run.id)

    def log(self, row: Row) -> None:
        """See the method of `Tracker`."""
        self._run.log(figures_of(row), step=row.iteration)

    def finish(self, outcome: Outcome) -> None:
        """See the method of `Tracker`."""
        if outcome.tested is not None:
            self._run.summary.update(figures_of_test(outcome.tested))
        if outcome.bundle is not None:
            artifact = self._wandb.Artifact(f"bundle-{self._run.id}", "model", metadata={"digest": outcome.digest})
            artifact.add_dir(str(outcome.bundle))
            self._run.log_artifact(artifact)
        self._run.finish(exit_code=0 if outcome.status == "finished" else 1)

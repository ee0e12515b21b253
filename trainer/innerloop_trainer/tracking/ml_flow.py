"""MLflow (Zaharia et al. 2018), local or on a server: MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME say where."""

from importlib import import_module
from typing import Any

from innerloop_trainer.runs.log import Row
from innerloop_trainer.tracking.tracker import Outcome, TrackedRun, figures_of, figures_of_test, trackers

NAME = "mlflow"


@trackers.register(NAME)
class MLflowTracker:
    """A run of MLflow: parameters, figures of each validation, figures on test classes, and the bundle."""

    def __init__(self) -> None:
        self._mlflow: Any = import_module("mlflow")

    def start(self, run: TrackedRun) -> None:
        """See the method of `Tracker`."""
        known = run.known_id(NAME)
        began = self._mlflow.start_run(run_id=known, run_name=None if known else run.name)
        run.keep_id(NAME, began.info.run_id)
        self._mlflow.log_params(dict(run.settings))

    def log(self, row: Row) -> None:
        """See the method of `Tracker`."""
        self._mlflow.log_metrics(figures_of(row), step=row.iteration)

    def finish(self, outcome: Outcome) -> None:
        """See the method of `Tracker`."""
        if outcome.tested is not None:
            self._mlflow.log_metrics(figures_of_test(outcome.tested))
        if outcome.bundle is not None:
            self._mlflow.set_tag("bundle", outcome.digest)
            self._mlflow.log_artifacts(str(outcome.bundle), "bundle")
        self._mlflow.end_run({"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}[outcome.status])

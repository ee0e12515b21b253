"""Trackers of experiments, which are told of a run as it goes on: MLflow, Weights & Biases, and others' own.

`tracker` is what a tracker is, `tracking` tells several of one run and survives each of them. The files that every run
writes itself, its CSV log and its events for TensorBoard, are no trackers: the run is resumed from them.
"""

from innerloop_trainer.tracking.ml_flow import MLflowTracker
from innerloop_trainer.tracking.tracker import Outcome, TrackedRun, Tracker, trackers
from innerloop_trainer.tracking.tracking import NO_TRACKING, Tracking, make_tracking
from innerloop_trainer.tracking.weights_and_biases import WandbTracker

__all__ = [
    "NO_TRACKING",
    "MLflowTracker",
    "Outcome",
    "TrackedRun",
    "Tracker",
    "Tracking",
    "WandbTracker",
    "make_tracking",
    "trackers",
]

"""Confidence of answers: what their logits say once a trainer has calibrated the model. Needs no PyTorch.

`record` holds the figures that a bundle keeps, `logits` and `intervals` compute from them. Servers and evaluations run
the same code.
"""

from innerloop_learner.calibration.intervals import intervals
from innerloop_learner.calibration.logits import (
    features,
    known,
    label_sets,
    nonconformity,
    probabilities,
    probabilities_and_known,
)
from innerloop_learner.calibration.record import COVERAGES, FALSE_ALARMS, Calibration, TaskCalibration, level_of

__all__ = [
    "COVERAGES",
    "FALSE_ALARMS",
    "Calibration",
    "TaskCalibration",
    "features",
    "intervals",
    "known",
    "label_sets",
    "level_of",
    "nonconformity",
    "probabilities",
    "probabilities_and_known",
]

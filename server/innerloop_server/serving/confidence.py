"""How sure answers are: computed from logits and values with the figures that a trainer stored in the bundle."""

from dataclasses import replace

import numpy as np

from innerloop_learner.calibration import (
    FALSE_ALARMS,
    TaskCalibration,
    intervals,
    label_sets,
    probabilities_and_known,
)
from innerloop_server.domain.answers import Answers
from innerloop_server.domain.errors import uncalibrated
from innerloop_server.engine.interface import LoadedModel

SHOWN_RATE = 0.05
"""Rate of false alarms at which queries are counted as unknown in metrics."""


def with_calibration(answers: Answers, model: LoadedModel, ways: int, support_size: int) -> Answers:
    """Answers to a task of so many classes (zero for regression) and support examples, with the calibration for it."""
    if model.calibration is None:
        return answers
    calibration = model.calibration.at(ways, support_size / max(ways, 1))
    return Answers(answers.logits, answers.probabilities, answers.values, calibration=calibration)


def sure_answers(answers: Answers, coverage: float | None) -> Answers:
    """Answers with calibrated probabilities and `known`, or variances, and with sets or intervals that were asked for.

    Args:
        answers: of the engine, with the calibration for tasks of their size. Those without one stay as they are.
        coverage: share of queries whose sets or intervals shall hold the truth; None for none.

    Raises:
        InvalidRequestError: a coverage was asked for that this model can't promise.
    """
    calibration = answers.calibration
    logits = answers.logits
    if calibration is None:
        if coverage is not None:
            raise uncalibrated()
        return answers
    if logits is None:
        return _sure_values(answers, calibration, coverage)
    honest, known = probabilities_and_known(logits, calibration)
    return Answers(
        logits,
        honest.astype(np.float32),
        known=None if known is None else known.astype(np.float32),
        thresholds=calibration.thresholds,
        label_sets=None if coverage is None else label_sets(logits, calibration, coverage),
    )


def unknown_queries(answers: Answers) -> int:
    """How many queries pass for unknown at SHOWN_RATE; zero for answers without `known`."""
    if answers.known is None:
        return 0
    return int(np.count_nonzero(answers.known < answers.thresholds[FALSE_ALARMS.index(SHOWN_RATE)]))


def _sure_values(answers: Answers, calibration: TaskCalibration, coverage: float | None) -> Answers:
    values = answers.values
    if values is None:
        return answers
    if calibration.variance is not None:
        answers = replace(answers, variances=np.full_like(values, calibration.variance))
    if coverage is None:
        return answers
    return replace(answers, intervals=intervals(values, calibration, coverage).astype(np.float32))

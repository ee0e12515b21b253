"""How sure a model is, and how often it is right."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from innerloop_learner.calibration import probabilities
from innerloop_learner.calibration.record import TaskCalibration
from innerloop_trainer.calibration import Honesty, answers_of_classes, honesty, measure_honesty
from innerloop_trainer.report.subject import Budget, Subject

BINS = 10
"""Bins of equal width that probabilities are counted in: fewer than for the error, since each is to be seen."""


@dataclass(frozen=True)
class Bin:
    """Queries whose largest probability lies in one bin: mean of it, share that is right, and how many they are."""

    sure: float
    right: float
    queries: int


@dataclass(frozen=True)
class Reliability:
    """How sure answers are against how often they are right.

    Attributes:
        before: bins of the softmax of logits; none for regression.
        after: bins of calibrated probabilities; none if the model is not calibrated.
        honesty: how well the calibration holds; None if there is none.
    """

    before: Sequence[Bin]
    after: Sequence[Bin]
    honesty: Honesty | None


def reliability(subject: Subject, budget: Budget) -> Reliability:
    """Measure how sure a model is on unseen classes."""
    bundle, shape, calibration = subject.bundle, subject.shape, subject.bundle.manifest.calibration
    measured = {"episodes": budget.episodes, "seed": subject.seed}
    if subject.regression:
        return Reliability((), (), measure_honesty(bundle, subject.sampler, shape, steps=subject.steps, **measured))
    answers = answers_of_classes(bundle.learner, bundle.params, subject.sampler, shape, steps=subject.steps, **measured)
    plain = TaskCalibration(shape.ways, shape.shots, 1.0, (), 0.0, (), (0.0,) * 50)
    before = bins(probabilities(answers.logits, plain), answers.targets)
    if calibration is None:
        return Reliability(before, (), None)
    own = calibration.at(shape.ways, shape.shots)
    return Reliability(before, bins(probabilities(answers.logits, own), answers.targets), honesty(answers, own))


def bins(sure: NDArray[np.floating[Any]], targets: NDArray[np.int64]) -> list[Bin]:
    """Count queries by their largest probability; bins without any are left out.

    >>> [(each.right, each.queries) for each in bins(np.array([[0.8, 0.2], [0.8, 0.2]]), np.array([0, 1]))]
    [(0.5, 2)]
    """
    largest, right = sure.max(-1).ravel(), (sure.argmax(-1) == targets).ravel()
    numbers = np.minimum((largest * BINS).astype(np.int64), BINS - 1)
    found = [numbers == number for number in range(BINS)]
    return [Bin(float(largest[own].mean()), float(right[own].mean()), int(own.sum())) for own in found if own.any()]

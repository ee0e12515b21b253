"""Says how well a calibration holds on classes that it was not made with."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from innerloop_learner.bundle import Bundle
from innerloop_learner.calibration import FALSE_ALARMS, TaskCalibration, known, label_sets, probabilities
from innerloop_trainer.calibration.answers import ClassAnswers, answers_of_classes, errors_of_values
from innerloop_trainer.data import EpisodeShape, TaskSampler

Floats = NDArray[np.floating[Any]]

BINS = 15
"""Bins of equal width that probabilities are counted in."""

SHOWN_COVERAGES = (0.9, 0.95, 0.99)
ALARMS = 0.05
"""Rate of false alarms that is shown."""


@dataclass(frozen=True)
class Honesty:
    """How well a calibration holds, each figure over all queries of many tasks.

    Attributes:
        error_before: expected calibration error of the softmax of logits; None for regression, as the next four are.
        error_after: that of calibrated probabilities.
        separation: area under the ROC curve of `known`, queries of other classes against those of the task's; None
            where there are no other classes, or the calibration can't tell them.
        baseline: that of the largest probability.
        false_alarms: share of queries of the task's classes that the threshold for 5% takes for unknown.
        coverage: share of true answers that lie in their sets or intervals, for each coverage asked for.
        size: mean number of labels in a set, or mean width of an interval, for each coverage asked for.
    """

    error_before: float | None
    error_after: float | None
    separation: float | None
    baseline: float | None
    false_alarms: float | None
    coverage: dict[float, float]
    size: dict[float, float]


def measure_honesty(
    bundle: Bundle,
    sampler: TaskSampler,
    shape: EpisodeShape,
    *,
    episodes: int,
    seed: int,
    steps: int | None = None,
) -> Honesty | None:
    """How well a bundle's calibration holds on a split; None if the bundle has none.

    Arguments as those of `answers_of_classes`, which says what it raises.
    """
    calibration = bundle.manifest.calibration
    if calibration is None:
        return None
    asked = (bundle.learner, bundle.params, sampler, shape)
    if bundle.learner.spec.task_kind == "regression":
        errors = errors_of_values(*asked, episodes=episodes, seed=seed, steps=steps)
        return _honesty_of_values(errors, calibration.at(0, shape.shots))
    answers = answers_of_classes(*asked, episodes=episodes, seed=seed, steps=steps)
    return honesty(answers, calibration.at(shape.ways, shape.shots))


def honesty(answers: ClassAnswers, calibration: TaskCalibration) -> Honesty:
    """How well figures hold for answers to classification tasks."""
    before, after = _softmax(answers.logits), probabilities(answers.logits, calibration)
    separation = baseline = alarms = None
    if answers.unknown.size and calibration.knows:
        own, others = known(answers.logits, calibration), known(answers.unknown, calibration)
        separation = area_under_curve(own, others)
        baseline = area_under_curve(before.max(-1), _softmax(answers.unknown).max(-1))
        alarms = float((own < calibration.thresholds[FALSE_ALARMS.index(ALARMS)]).mean())
    sets = {coverage: label_sets(answers.logits, calibration, coverage) for coverage in SHOWN_COVERAGES}
    return Honesty(
        error_before=calibration_error(before, answers.targets),
        error_after=calibration_error(after, answers.targets),
        separation=separation,
        baseline=baseline,
        false_alarms=alarms,
        coverage={each: _covered(found, answers.targets) for each, found in sets.items()},
        size={each: float(found.sum(-1).mean()) for each, found in sets.items()},
    )


def calibration_error(sure: Floats, targets: NDArray[np.int64]) -> float:
    """Expected calibration error of probabilities [..., W]: how far the most probable labels are from being as right.

        sum_b |B_b| / N * |share of B_b that is right - mean largest probability in B_b|

    over 15 bins B of the largest probability (Guo et al., ICML 2017, equation 3).

    >>> float(calibration_error(np.array([[0.8, 0.2], [0.8, 0.2]]), np.array([0, 1])))
    0.3
    """
    largest, right = sure.max(-1).ravel(), (sure.argmax(-1) == targets).ravel()
    bins = np.minimum((largest * BINS).astype(np.int64), BINS - 1)
    gaps = np.bincount(bins, weights=largest - right, minlength=BINS)
    return round(float(np.abs(gaps).sum() / largest.size), 12)


def area_under_curve(own: Floats, others: Floats) -> float:
    """Share of pairs of a known and an unknown query in which the known one scores higher; ties count half.

    >>> area_under_curve(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    0.875
    """
    own, others = own.ravel(), np.sort(others, axis=None)
    below, up_to = np.searchsorted(others, own, "left"), np.searchsorted(others, own, "right")
    return float((below + up_to).mean() / 2 / others.size)


def _honesty_of_values(errors: Floats, calibration: TaskCalibration) -> Honesty:
    widths = {coverage: calibration.quantile(coverage) for coverage in SHOWN_COVERAGES}
    coverage = {each: float((errors <= width).mean()) for each, width in widths.items()}
    return Honesty(None, None, None, None, None, coverage, {each: 2 * width for each, width in widths.items()})


def _covered(sets: NDArray[np.bool_], targets: NDArray[np.int64]) -> float:
    return float(np.take_along_axis(sets, targets[..., None], -1).mean())


def _softmax(logits: Floats) -> Floats:
    logits = np.asarray(logits, np.float64)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    result: Floats = weights / weights.sum(-1, keepdims=True)
    return result

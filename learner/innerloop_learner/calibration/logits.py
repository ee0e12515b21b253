"""What the logits of a classification say: honest probabilities, whether the query is known, and sets of labels.

All functions work on the logits [..., W] of a task's W classes, in float64, and on each query by itself.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from innerloop_learner.calibration.record import TaskCalibration

Floats = NDArray[np.floating[Any]]

SMALLEST_ODDS = 1e-15
"""Smallest odds of all other classes together against the most probable one: smaller ones are rounded away."""

SMALLEST = 1e-300
"""Keeps logarithms finite where all other classes together have no weight that a float64 can hold."""


def probabilities(logits: Floats, calibration: TaskCalibration) -> Floats:
    """Probabilities [..., W] as sure as they are right, by one temperature T: softmax(logits / T).

    The order of classes stays. Guo, Pleiss, Sun and Weinberger, On Calibration of Modern Neural Networks, ICML 2017,
    section 4.2.
    """
    return _probabilities(_scaled(logits, calibration.temperature))


def features(logits: Floats, temperature: float) -> Floats:
    """Three numbers [..., 3] of logits / temperature that tell queries of the task's classes from others.

        the largest one                             falls with the distance to the nearest class
        log p / (1 - p) of the most probable class  falls where several classes are as near
        the mean                                    says how far away all classes are

    The first is what Hendrycks et al. (Scaling Out-of-Distribution Detection for Real-World Settings, ICML 2022) take,
    the second orders queries as the maximum probability does (Hendrycks and Gimpel, A Baseline for Detecting
    Misclassified and Out-of-Distribution Examples, ICLR 2017).
    """
    return np.stack(_features(_scaled(logits, temperature)), -1)


def known(logits: Floats, calibration: TaskCalibration) -> Floats:
    """Probability [...] that the query belongs to one of the task's classes, if half of all queries did.

    known = 1 / (1 + exp(-(weights . features + bias)))
    """
    return _known(_scaled(logits, calibration.temperature), calibration)


def probabilities_and_known(logits: Floats, calibration: TaskCalibration) -> tuple[Floats, Floats | None]:
    """What `probabilities` and `known` say, at the cost of one; None where the calibration can't tell known queries."""
    of = _scaled(logits, calibration.temperature)
    return _probabilities(of), _known(of, calibration) if calibration.knows else None


def nonconformity(logits: Floats, temperature: float) -> Floats:
    """How little each label fits the query [..., W]: log (1 - p) / p of its probability p at a temperature.

    It orders labels as 1 - p does (Sadinle, Lei and Wasserman, Least Ambiguous Set-Valued Classifiers with Bounded
    Error Levels, JASA 2019), without rounding small differences away where p is almost 1.
    """
    scaled, largest, weights, total = _scaled(logits, temperature)
    others = total[..., None] - weights
    top = weights.argmax(-1)[..., None]
    without_top = weights.copy()
    np.put_along_axis(without_top, top, 0.0, -1)
    np.put_along_axis(others, top, without_top.sum(-1, keepdims=True), -1)  # a difference would round to zero
    result: Floats = np.log(np.maximum(others, SMALLEST)) - (scaled - largest[..., None])
    return result


def label_sets(logits: Floats, calibration: TaskCalibration, coverage: float) -> NDArray[np.bool_]:
    """The labels [..., W] of which the true one is among them for a share `coverage` of queries, over tasks.

    A set is empty where no label is as probable as true labels usually are.

    Raises:
        ValueError: the coverage is outside of COVERAGES.
    """
    result: NDArray[np.bool_] = nonconformity(logits, calibration.temperature) <= calibration.quantile(coverage)
    return result


class _Scaled(NamedTuple):
    """Logits / temperature [..., W], the largest [...], all exp(scaled - largest) [..., W], and their sum [...].

    Operations on so small arrays cost as much as calls do, so every answer is made of as few as possible.
    """

    scaled: Floats
    largest: Floats
    weights: Floats
    total: Floats


def _scaled(logits: Floats, temperature: float) -> _Scaled:
    scaled = np.divide(logits, temperature, dtype=np.float64)
    largest = scaled.max(-1)
    weights = np.exp(scaled - largest[..., None])
    return _Scaled(scaled, largest, weights, weights.sum(-1))


def _probabilities(of: _Scaled) -> Floats:
    result: Floats = of.weights / of.total[..., None]
    return result


def _features(of: _Scaled) -> tuple[Floats, Floats, Floats]:
    return of.largest, -_log_others(of), of.scaled.sum(-1) / of.scaled.shape[-1]


def _log_others(of: _Scaled) -> Floats:
    """Logarithm of the weight of all classes but the most probable one, whose weight is 1."""
    result: Floats = np.log(np.maximum(of.total - 1, SMALLEST_ODDS))
    return result


def _known(of: _Scaled, calibration: TaskCalibration) -> Floats:
    of_largest, of_odds, of_mean = calibration.weights
    # The logistic function by way of tanh, which never overflows.
    result: Floats = 0.5 + 0.5 * np.tanh(
        (of_largest / 2) * of.largest
        - (of_odds / 2) * _log_others(of)
        + (of_mean / 2 / of.scaled.shape[-1]) * of.scaled.sum(-1)
        + calibration.bias / 2
    )
    return result

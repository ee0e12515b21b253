"""What the logits of a classification say: honest probabilities, whether the query is known, and sets of labels.

All functions work on the logits [..., W] of a task's W classes, in float64, and on each query by itself.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from innerloop_learner.calibration.record import TaskCalibration

Floats = NDArray[np.floating[Any]]

SMALLEST = 1e-300
"""Keeps logarithms finite where all other classes together have no weight that a float64 can hold."""


def probabilities(logits: Floats, calibration: TaskCalibration) -> Floats:
    """Probabilities [..., W] as sure as they are right, by one temperature T: softmax(logits / T).

    The order of classes stays. Guo, Pleiss, Sun and Weinberger, On Calibration of Modern Neural Networks, ICML 2017,
    section 4.2.
    """
    scaled = np.asarray(logits, np.float64) / calibration.temperature
    weights = np.exp(scaled - scaled.max(-1, keepdims=True))
    result: Floats = weights / weights.sum(-1, keepdims=True)
    return result


def features(logits: Floats) -> Floats:
    """Three numbers [..., 3] that tell queries of the task's classes from others.

        the largest logit                           which falls with the distance to the nearest class
        log p / (1 - p) of the most probable class  which falls where several classes are as near
        the mean logit                              which says how far away all classes are

    The first is what Hendrycks et al. (Scaling Out-of-Distribution Detection for Real-World Settings, ICML 2022) take,
    the second orders queries as the maximum probability does (Hendrycks and Gimpel, A Baseline for Detecting
    Misclassified and Out-of-Distribution Examples, ICLR 2017).
    """
    logits = np.asarray(logits, np.float64)
    largest = logits.max(-1)
    weights = np.exp(logits - largest[..., None])
    weights.sort(-1)
    odds = -np.log(np.maximum(weights[..., :-1].sum(-1), SMALLEST))
    result: Floats = np.stack([largest, odds, logits.mean(-1)], -1)
    return result


def known(logits: Floats, calibration: TaskCalibration) -> Floats:
    """Probability [...] that the query belongs to one of the task's classes, if half of all queries did.

    known = 1 / (1 + exp(-(weights . features + bias)))
    """
    scores = features(logits) @ np.asarray(calibration.weights) + calibration.bias
    result: Floats = 1 / (1 + np.exp(-np.clip(scores, -700, 700)))
    return result


def nonconformity(logits: Floats, temperature: float) -> Floats:
    """How little each label fits the query [..., W]: log (1 - p) / p of its probability p at a temperature.

    It orders labels as 1 - p does (Sadinle, Lei and Wasserman, Least Ambiguous Set-Valued Classifiers with Bounded
    Error Levels, JASA 2019), without rounding small differences away where p is almost 1.
    """
    scaled = np.asarray(logits, np.float64) / temperature
    scaled = scaled - scaled.max(-1, keepdims=True)
    weights = np.exp(scaled)
    others = weights.sum(-1, keepdims=True) - weights
    top = weights.argmax(-1)[..., None]
    without_top = weights.copy()
    np.put_along_axis(without_top, top, 0.0, -1)
    np.put_along_axis(others, top, without_top.sum(-1, keepdims=True), -1)  # a difference would round to zero
    result: Floats = np.log(np.maximum(others, SMALLEST)) - scaled
    return result


def label_sets(logits: Floats, calibration: TaskCalibration, coverage: float) -> NDArray[np.bool_]:
    """The labels [..., W] of which the true one is among them for a share `coverage` of queries, over tasks.

    A set is empty where no label is as probable as true labels usually are.

    Raises:
        ValueError: the coverage is outside of COVERAGES.
    """
    result: NDArray[np.bool_] = nonconformity(logits, calibration.temperature) <= calibration.quantile(coverage)
    return result

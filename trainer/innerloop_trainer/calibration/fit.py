"""Fits the figures of a calibration to answers whose truth is known."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from innerloop_learner.calibration import COVERAGES, FALSE_ALARMS, TaskCalibration, features, known, nonconformity
from innerloop_trainer.calibration.answers import ClassAnswers

Floats = NDArray[np.floating[Any]]

USUAL_EPISODES = 1000
"""Episodes of each size that a calibration is made with, if nobody says otherwise: on Omniglot, sets of labels missed
their coverage by 0.9 points at most then, and by up to 1.5 with 200. It takes 9% of a usual run of `protonet`."""

FEWEST_EPISODES = 100
"""Episodes without which a coverage of 99% can't be promised: with 99 tasks or more, one may be outside."""

TEMPERATURES = (1e-3, 1e10)
"""Smallest and largest temperature that is looked at; classes without any vote of `knn` have logits of -1e9."""

PRECISION = 1e-3
"""Largest error of the logarithm of a temperature."""


def fit_classes(answers: ClassAnswers, shots: int) -> TaskCalibration:
    """The figures for classification tasks of one size.

    Args:
        answers: to at least FEWEST_EPISODES episodes.
        shots: support examples of each of their classes.
    """
    temperature = fit_temperature(answers.logits, answers.targets)
    scores = np.take_along_axis(nonconformity(answers.logits, temperature), answers.targets[..., None], -1)[..., 0]
    fitted = TaskCalibration(
        ways=answers.logits.shape[-1],
        shots=shots,
        temperature=temperature,
        weights=(),
        bias=0.0,
        thresholds=(),
        quantiles=task_quantiles(scores),
    )
    if not answers.unknown.size:
        return fitted
    weights, bias = fit_known(answers, temperature)
    return _with_thresholds(fitted, answers, weights, bias)


def fit_values(errors: Floats, shots: int) -> TaskCalibration:
    """The figures for regression tasks of one size.

    Args:
        errors: absolute errors [E, Q] of answers to at least FEWEST_EPISODES episodes.
        shots: support examples of each of them.
    """
    return TaskCalibration(
        ways=0,
        shots=shots,
        temperature=1.0,
        weights=(),
        bias=0.0,
        thresholds=(),
        quantiles=task_quantiles(errors),
        variance=float(np.square(errors, dtype=np.float64).mean()),
    )


def fit_temperature(logits: Floats, targets: NDArray[np.int64]) -> float:
    """The temperature at which the mean of the largest probabilities is the share of labels that are right.

    It is found by bisection, since the mean largest probability falls with the temperature. Where tasks differ in how
    hard they are, the temperature at which the truth is most likely (Guo et al., ICML 2017) makes answers too modest: a
    few confident mistakes weigh more there than many answers that are surer than they say.

    Args:
        logits: [..., W].
        targets: [...] classes.
    """
    logits = np.asarray(logits, np.float64)
    right = logits.argmax(-1) == targets
    share = (right.sum() + 0.5) / (right.size + 1)  # below 1 even if all are right
    low, high = map(math.log, TEMPERATURES)
    while high - low > PRECISION:
        middle = (low + high) / 2
        scaled = logits / math.exp(middle)
        # The largest logit has the weight 1.
        sure = (1 / np.exp(scaled - scaled.max(-1, keepdims=True)).sum(-1)).mean()
        low, high = (middle, high) if sure > share else (low, middle)
    return math.exp((low + high) / 2)


def task_quantiles(scores: Floats) -> tuple[float, ...]:
    """The quantile of scores [E, Q] for each of COVERAGES that holds for a query of a further task.

    The distribution functions of all tasks are pooled, and one more task is counted whose scores are all infinite: the
    quantile t is the smallest score with sum_e F_e(t) / (E + 1) >= coverage (Dunn, Wasserman and Ramdas,
    Distribution-Free Prediction Sets for Two-Layer Hierarchical Models, JASA 2023, section 3.1, pooling).

    >>> [round(task_quantiles(np.arange(1.0, 100.0)[:, None])[level], 2) for level in (0, 45)]
    [50.0, 95.0]
    """
    episodes = len(scores)
    ordered = np.sort(scores, axis=None)
    ranks = np.array([math.ceil(coverage * (episodes + 1) / episodes * ordered.size - 1e-9) for coverage in COVERAGES])
    return tuple(float(score) for score in ordered[ranks.clip(max=ordered.size) - 1])


def fit_known(answers: ClassAnswers, temperature: float) -> tuple[tuple[float, ...], float]:
    """Weights and bias of `known`: logistic regression on the features, known and unknown queries counting the same."""
    own, others = (features(logits, temperature).reshape(-1, 3) for logits in (answers.logits, answers.unknown))
    x = np.concatenate([own, others])
    y = np.concatenate([np.ones(len(own)), np.zeros(len(others))])
    share = np.concatenate([np.full(len(own), 0.5 / len(own)), np.full(len(others), 0.5 / len(others))])
    mean, scale = x.mean(0), x.std(0) + 1e-12
    weights = _logistic_regression((x - mean) / scale, y, share) / np.append(scale, 1.0)
    return tuple(weights[:-1].tolist()), float(weights[-1] - weights[:-1] @ mean)


RIDGE = 1e-4
"""Weight of the squared coefficients, which would grow for ever where both kinds of queries lie apart."""


def _logistic_regression(x: Floats, y: Floats, share: Floats) -> Floats:
    """Coefficients of the columns of x [N, F], and last the constant, by Newton's method."""
    x = np.column_stack([x, np.ones(len(x))])
    penalty = RIDGE * np.diag(np.append(np.ones(x.shape[1] - 1), 0.0))
    coefficients = np.zeros(x.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(x @ coefficients, -500, 500)))
        gradient = x.T @ (share * (p - y)) + penalty @ coefficients
        curvature = (x * (share * p * (1 - p))[:, None]).T @ x + penalty + 1e-9 * np.eye(len(penalty))
        step = np.linalg.solve(curvature, gradient)
        coefficients = coefficients - step * min(1.0, 4.0 / np.abs(step).max())
        if np.abs(step).max() < 1e-8:
            break
    return coefficients


def _with_thresholds(
    fitted: TaskCalibration, answers: ClassAnswers, weights: tuple[float, ...], bias: float
) -> TaskCalibration:
    def with_figures(thresholds: tuple[float, ...]) -> TaskCalibration:
        return TaskCalibration(
            fitted.ways, fitted.shots, fitted.temperature, weights, bias, thresholds, fitted.quantiles
        )

    sure = known(answers.logits, with_figures((0.0,) * len(FALSE_ALARMS)))
    return with_figures(tuple(np.quantile(sure, FALSE_ALARMS).tolist()))

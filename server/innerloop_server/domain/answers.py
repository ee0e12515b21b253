"""The answers of a model to queries."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np
from numpy.typing import NDArray

from innerloop_learner.calibration import TaskCalibration


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers to the Q queries of one task, float32.

    Attributes:
        logits: [Q, ways]; None for regression.
        probabilities: [Q, ways]; None for regression.
        values: [Q, D]; None for classification.
        calibration: how sure such answers are; None if the model is not calibrated.
        known: probability that each query belongs to one of the classes [Q]; None if the model is not calibrated, and
            for regression; as the rest, None in answers of an engine.
        thresholds: of `known` for each of the calibration's rates of false alarms; empty without `known`.
        label_sets: [Q, ways] bool, labels in the set of each query; None if no coverage was asked for.
        variances: [Q, D], mean squared errors of the values; None if the model's calibration has none, and for
            classification.
        intervals: [Q, D, 2], lower and upper ends; None if no coverage was asked for, and for classification.
    """

    logits: NDArray[np.float32] | None = None
    probabilities: NDArray[np.float32] | None = None
    values: NDArray[np.float32] | None = None
    _: KW_ONLY
    calibration: TaskCalibration | None = None
    known: NDArray[np.float32] | None = None
    thresholds: Sequence[float] = ()
    label_sets: NDArray[np.bool_] | None = None
    variances: NDArray[np.float32] | None = None
    intervals: NDArray[np.float32] | None = None

    @property
    def finite(self) -> bool:
        """Whether the answers are numbers; they are not when the adaptation diverged."""
        numbers = (self.probabilities, self.values)
        return all(bool(np.isfinite(array).all()) for array in numbers if array is not None)


def split_answers(answers: Answers, sizes: Sequence[int]) -> list[Answers]:
    """The logits and probabilities of an engine's answers, so many queries at a time."""
    ends = np.cumsum(sizes)
    both = answers.logits, answers.probabilities
    return [
        Answers(*(None if array is None else array[end - size : end] for array in both))
        for size, end in zip(sizes, ends, strict=True)
    ]


def join_answers(parts: Sequence[Answers]) -> Answers:
    """The answers to queries of one task that were asked in parts."""
    return Answers(
        _join([part.logits for part in parts]),
        _join([part.probabilities for part in parts]),
        _join([part.values for part in parts]),
    )


def _join(parts: Sequence[NDArray[np.float32] | None]) -> NDArray[np.float32] | None:
    present = [part for part in parts if part is not None]
    return np.concatenate(present) if present else None

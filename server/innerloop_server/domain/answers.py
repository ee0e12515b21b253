"""The answers of a model to queries."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers to the Q queries of one task, float32.

    Attributes:
        logits: [Q, ways]; None for regression.
        probabilities: [Q, ways]; None for regression.
        values: [Q, D]; None for classification.
    """

    logits: NDArray[np.float32] | None = None
    probabilities: NDArray[np.float32] | None = None
    values: NDArray[np.float32] | None = None

    @property
    def finite(self) -> bool:
        """Whether the answers are numbers; they are not when the adaptation diverged."""
        numbers = (self.probabilities, self.values)
        return all(bool(np.isfinite(array).all()) for array in numbers if array is not None)


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

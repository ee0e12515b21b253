"""The answers of a model to queries."""

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

"""What the values of a regression say: intervals that hold the true ones."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from innerloop_learner.calibration.record import TaskCalibration


def intervals(
    values: NDArray[np.floating[Any]], calibration: TaskCalibration, coverage: float
) -> NDArray[np.floating[Any]]:
    """Lower and upper ends [..., D, 2] of intervals around values [..., D].

    Each holds its true value for a share `coverage` of queries, over tasks; all are equally wide.

    Raises:
        ValueError: the coverage is outside of COVERAGES.
    """
    width = calibration.quantile(coverage)
    result: NDArray[np.floating[Any]] = np.stack([values - width, values + width], -1)
    return result

"""Confidence intervals of means of few values, such as one for each seed or each round."""

import math
from collections.abc import Sequence
from statistics import stdev

from scipy.stats import t

CONFIDENCE = 0.95


def half_width(values: Sequence[float]) -> float:
    """Half the width of the 95% confidence interval of the mean of values, by Student's t.

    >>> round(half_width([1.0, 2.0, 3.0]), 3)
    2.484
    """
    return float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))

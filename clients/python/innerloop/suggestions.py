"""Chooses, of many unlabelled inputs, those worth a label, by what an adaptation answers to them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from innerloop.errors import InvalidArgumentError


def worth_labels(probabilities: NDArray[np.floating[Any]], n: int) -> list[int]:
    """The queries whose labels would help most, chosen one after another.

    Of all that are left, the next one has the largest

        (1 - (p_1 - p_2)) * distance

    where p_1 and p_2 are its two largest probabilities, and distance is that between its probabilities and those of the
    nearest query chosen before it (1 for the first): it is undecided, and not about the same as one of these.
    The margin is that of Scheffer, Decomain and Wrobel, Active Hidden Markov Models, IDA 2001.

    Args:
        probabilities: of the classes for each query [Q, W].
        n: how many.

    Raises:
        InvalidArgumentError: there are not so many.

    Example:
        >>> worth_labels(np.array([[0.9, 0.1, 0.0], [0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.4, 0.6]]), 2)
        [1, 3]
    """
    if not 1 <= n <= len(probabilities):
        raise InvalidArgumentError(f"can't suggest {n} of {len(probabilities)} inputs; ask for 1 or more of them")
    given = probabilities.astype(np.float64)
    largest = np.sort(given, axis=1)[:, -2:]
    undecided = 1 - (largest[:, 1] - largest[:, 0])
    nearest, chosen = np.ones(len(given)), [int(undecided.argmax())]
    left = np.ones(len(given), np.bool_)
    while len(chosen) < n:
        left[chosen[-1]] = False
        nearest = np.minimum(nearest, np.linalg.norm(given - given[chosen[-1]], axis=1))
        chosen.append(int(np.where(left, undecided * nearest, -1.0).argmax()))
    return chosen

"""Divides speakers into those of support sets and those of queries, so that no one is on both sides of an episode."""

import numpy as np
from numpy.typing import NDArray

DIVISIONS = 256
"""Number of divisions that episodes draw from. Six speakers have 20 even ones, so all of them are among so many."""

MOST_MOVES = 2_000
"""Most speakers who are moved to the other side before a division is given up."""


class NoDivisionError(ValueError):
    """No division gives every class the examples it needs.

    Attributes:
        row: row of a class that stays short of examples.
    """

    def __init__(self, row: int) -> None:
        super().__init__(f"no division of the speakers serves class {row}")
        self.row = row


def divide_speakers(counts: NDArray[np.int64], shots: int, queries: int) -> NDArray[np.bool_]:
    """Divisions of speakers that serve every class, always the same ones for the same counts.

    Each begins with a random half of the speakers on the support side. While a class has too few examples on a side, a
    speaker of this class, drawn at random, moves there (the random walk of Papadimitriou 1991 for satisfiability).

    Args:
        counts: number of examples [K, G] of each class by each speaker; each class has `shots + queries` at least.
        shots: examples that each class needs by speakers of the support side.
        queries: examples that each class needs by the other speakers.

    Returns:
        [D, G], true for speakers of the support side.

    Raises:
        NoDivisionError: none was found.
    """
    random = np.random.default_rng(0)
    found = []
    for _ in range(DIVISIONS):
        try:
            found.append(_walk(counts, shots, queries, random))
        except NoDivisionError:
            if not found:
                raise
    return np.stack(found)


def _walk(counts: NDArray[np.int64], shots: int, queries: int, random: np.random.Generator) -> NDArray[np.bool_]:
    speakers = counts.shape[1]
    side = np.zeros(speakers, bool)
    side[random.permutation(speakers)[: (speakers + random.integers(2)) // 2]] = True
    supports = counts @ side
    most = counts.sum(1) - queries
    for _ in range(MOST_MOVES):
        short = np.flatnonzero((supports < shots) | (supports > most))
        if not len(short):
            return side
        row = random.choice(short)
        wanted = supports[row] < shots
        moved = random.choice(np.flatnonzero((counts[row] > 0) & (side != wanted)))
        side[moved] = wanted
        supports += counts[:, moved] if wanted else -counts[:, moved]
    raise NoDivisionError(int(row))

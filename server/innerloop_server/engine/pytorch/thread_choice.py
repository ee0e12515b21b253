"""How many threads a computation takes that has the processors to itself."""

import math
from collections import deque
from collections.abc import Sequence
from statistics import median

TURNS = 48
"""Computations from one round of trials to the next."""

TRIALS, REMEMBERED = 4, 9
"""Of each number of threads, in a row; and measurements that count. Threads that are in each other's way for a tick of
the scheduler, as happens a few times when work begins after a pause, cost 10 ms: the median of nine, once there are as
many, leaves that out."""


class ThreadChoice:
    """Takes what was fastest lately, and tries everything again now and then.

    A second thread halves the time of a large computation and adds to that of a small one; on a machine that others
    use, too, which of both it does changes within seconds.

    Args:
        choices: numbers of threads; the first one is what a computation gets that comes a few times only.
    """

    def __init__(self, choices: Sequence[int]) -> None:
        self._choices = choices
        self._seconds: dict[int, deque[float]] = {threads: deque(maxlen=REMEMBERED) for threads in choices}
        self._turn = 0
        self._warm = False

    def next(self) -> int:
        """How many threads to take."""
        turn = self._turn
        self._turn = (turn + 1) % TURNS
        if turn < TRIALS * len(self._choices):
            choice, trial = divmod(turn, TRIALS)
            self._warm = trial > 0  # the first one may start threads, or be the first of all
            return self._choices[choice]
        self._warm = True
        return min(self._choices, key=lambda threads: median(self._seconds[threads] or (math.inf,)))

    def took(self, threads: int, seconds: float) -> None:
        """Take note of the computation that came next, on so many threads."""
        if self._warm:
            self._seconds[threads].append(seconds)

"""How many threads a computation takes that has the processors to itself."""

import math
from collections import deque
from collections.abc import Sequence
from statistics import median

TURNS = 48
"""Number of computations from the beginning of one round of trials to the next."""

TRIALS, REMEMBERED = 4, 9
"""Trials in a row with each number of threads, and number of its latest measurements whose median is compared.

When work begins after a pause, threads may block each other a few times for a tick of the system's scheduler, 10 ms
each. The median of nine measurements leaves these out.
"""


class ThreadChoice:
    """Chooses the number of threads that was fastest lately, and tries all of them again now and then.

    A second thread halves the time of a large computation and adds to that of a small one. On a machine that others
    use, too, which of the two it does changes within seconds, so that a choice made once would soon be wrong.

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
        """Record the next computation, and the number of threads that it ran on."""
        if self._warm:
            self._seconds[threads].append(seconds)

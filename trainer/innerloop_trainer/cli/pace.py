"""How fast long work goes, how long it will take, and when another line of a log should say so."""

from time import monotonic

SECONDS_BETWEEN_LINES = 30.0
"""Seconds without output after which a log gets a line."""


class Pace:
    """Follows work whose output is no terminal.

    Args:
        done: what was done of the work before, in any unit, such as outer steps of a run that is resumed.
        total: all of it.
    """

    def __init__(self, done: float, total: float) -> None:
        self._began, self._before, self._total = monotonic(), done, total
        self._said = self._began

    def due(self) -> bool:
        """Whether nothing has been said for a while. If so, it counts as said."""
        if monotonic() - self._said < SECONDS_BETWEEN_LINES:
            return False
        self.said()
        return True

    def said(self) -> None:
        """Note that something was said just now."""
        self._said = monotonic()

    def per_second(self, done: float) -> float:
        """Units done in a second, on average."""
        return (done - self._before) / max(monotonic() - self._began, 1e-9)

    def left(self, done: float) -> str:
        """The time that the rest takes at this pace, to follow other figures; empty if unknown, or nothing is left."""
        speed, rest = self.per_second(done), self._total - done
        return f"  {in_words(rest / speed)} left" if speed > 0 and rest > 0 else ""


def in_words(seconds: float) -> str:
    """A duration as people say it.

    >>> in_words(44.6), in_words(3 * 60 + 20), in_words(2 * 3600 + 5 * 60), in_words(50 * 3600)
    ('45 s', '3 min', '2 h 5 min', '2 days 2 h')
    """
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} days {hours % 24} h"

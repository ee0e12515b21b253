"""The deadline of a request."""

import time
from typing import Self


class Deadline:
    """The moment after which an answer is useless. It can be extended, because several callers may wait for one answer.

    Args:
        seconds: from now; None means never.
    """

    __slots__ = ("at",)

    def __init__(self, seconds: float | None = None) -> None:
        self.at = float("inf") if seconds is None else time.monotonic() + seconds

    @classmethod
    def until(cls, at: float) -> Self:
        """The deadline at a moment of the monotonic clock."""
        deadline = cls()
        deadline.at = at
        return deadline

    @property
    def passed(self) -> bool:
        """Whether it is too late."""
        return time.monotonic() >= self.at

    @property
    def remaining(self) -> float:
        """Seconds left; below zero when it is too late."""
        return self.at - time.monotonic()

    def within(self, seconds: float) -> bool:
        """Whether the deadline will have passed in `seconds` seconds."""
        return time.monotonic() + seconds >= self.at

    def extend(self, other: "Deadline") -> None:
        """Wait for the later of the two."""
        self.at = max(self.at, other.at)

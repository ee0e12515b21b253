"""A batch of tasks that is computed in parts, and what its tasks have to know of each other.

Several processes may train on one batch of tasks, each on a part of it. Almost everything in training belongs to one
task. What doesn't asks `current_part()`: moments that are pooled over tasks, numbers that are drawn for one task after
the other, and means over tasks of which more is made than a sum. Outside of `computing`, a batch is in one part.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor


class Part:
    """A part of the tasks of a batch; this one is the whole batch.

    All parts call the same functions in the same order, since each waits for the others.
    """

    def total(self, tasks: int) -> int:
        """The number of tasks of the whole batch, of which this part has `tasks`."""
        return tasks

    def own(self, values: Tensor) -> Tensor:
        """This part's rows of values that were drawn for the whole batch, [T, ...]."""
        return values

    def mean(self, value: Tensor) -> Tensor:
        """The mean over the tasks of the batch, from the mean over those of this part; without gradients."""
        return value.detach()

    def sum(self, value: Tensor) -> Tensor:
        """The sum of the values of all parts.

        Gradients are those of a loss that is the mean over tasks, and whose gradients are averaged over tasks, too.
        """
        return value


def current_part() -> Part:
    """The part of a batch that is being computed."""
    return _current.get() or _WHOLE


@contextmanager
def computing(part: Part) -> Iterator[None]:
    """Say that what is computed inside this context is a part of a batch."""
    token = _current.set(part)
    try:
        yield
    finally:
        _current.reset(token)


_WHOLE = Part()
_current: ContextVar[Part | None] = ContextVar("part", default=None)

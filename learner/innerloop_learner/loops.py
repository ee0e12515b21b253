"""Loops whose number of rounds is only known when they run.

In Python they are plain loops, which end early when nobody needs the result any more (`stopping`). An exporter that
traces a learner can put a `Recorder` in their place, so that a graph holds the body once instead of once for each
round.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import torch
from torch import Tensor

from innerloop_learner.tasks import Params

Index = int | Tensor
"""The number of a round, from 0; while a recorder records, a scalar tensor that stands for it."""

Body = Callable[[Any, Params], tuple[Params, Params]]
"""One round: from its number and what the last one carried over to what it carries over and what it leaves."""


class Recorder(Protocol):
    """Records the body of a loop instead of running it."""

    def repeat(self, body: Body, carried: Params, rounds: Any) -> tuple[Params, Params]:
        """See `repeat`."""


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """A loop ended before its last round, because nobody needs the result any more."""


def repeat(body: Body, carried: Params, rounds: Any) -> tuple[Params, Params]:
    """Run `body` for a number of rounds.

    Args:
        body: one round; what it carries over has the same shapes in every round.
        carried: what goes into the first round.
        rounds: number of rounds, an integer, or a scalar tensor while a recorder records.

    Returns:
        what the last round carried over; and what the rounds left, stacked along a new first dimension (empty without
        rounds).

    Raises:
        Stopped: see `stopping`.

    Example:
        >>> def double(index, carried):
        ...     return {"x": 2 * carried["x"]}, {"seen": carried["x"]}
        >>> carried, left = repeat(double, {"x": torch.tensor(1)}, 4)
        >>> carried["x"].item(), left["seen"].tolist()
        (16, [1, 2, 4, 8])
    """
    recorder = _recorder.get()
    if recorder is not None:
        return recorder.repeat(body, carried, rounds)
    left: dict[str, list[Tensor]] = {}
    needless = _needless.get()
    for index in range(rounds):
        if needless is not None and needless():
            raise Stopped
        carried, leaves = body(index, carried)
        for name, value in leaves.items():
            left.setdefault(name, []).append(value)
    return carried, {name: torch.stack(values) for name, values in left.items()}


def row(table: Tensor, index: Index) -> Tensor:
    """Row number `index` of `table` [R, ...]; numbers past the end give the last row."""
    last = table.shape[0] - 1
    return _select(table, 0, min(index, last) if isinstance(index, int) else index.clamp(max=last))


def example(x: Tensor, index: Index) -> Tensor:
    """Example number `index` of every task: [T, ...] of x [T, N, ...]."""
    return _select(x, 1, index)


def _select(x: Tensor, dimension: int, index: Index) -> Tensor:
    if isinstance(index, int):
        return x.select(dimension, index)
    return x.index_select(dimension, index.reshape(1)).squeeze(dimension)


@contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """Have `repeat` hand loops to the recorder inside this context, instead of running them."""
    before = _recorder.set(recorder)
    try:
        yield
    finally:
        _recorder.reset(before)


@contextmanager
def stopping(needless: Callable[[], bool]) -> Iterator[None]:
    """Have `repeat` ask before each round whether the result is needless, and raise `Stopped` if it is."""
    before = _needless.set(needless)
    try:
        yield
    finally:
        _needless.reset(before)


_needless: ContextVar[Callable[[], bool] | None] = ContextVar("needless", default=None)
_recorder: ContextVar[Recorder | None] = ContextVar("recorder", default=None)

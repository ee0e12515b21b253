"""Loops whose number of rounds is only known when they run.

In Python they are plain loops. An exporter that traces a learner can put a `Recorder` in their place, so that a graph
holds the body once instead of once for each round.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import torch
from torch import Tensor

from innerloop_learner.tasks import Params

Index = int | Tensor
"""A round's number from 0, or while recording a scalar tensor that stands for it."""

Body = Callable[[Any, Params], tuple[Params, Params]]
"""From a round's number and what the last one carried over to what this one does, and what it leaves."""


class Recorder(Protocol):
    """Records the body of a loop instead of running it."""

    def repeat(self, body: Body, carried: Params, rounds: Any) -> tuple[Params, Params]:
        """See `repeat`."""


def repeat(body: Body, carried: Params, rounds: Any) -> tuple[Params, Params]:
    """Run `body` so many times.

    Args:
        body: called with the number of each round and what was carried over to it, of the same shapes in every round.
        carried: what goes into the first round.
        rounds: how many.

    Returns:
        what the last round carried over, and what each round left, stacked along a new first dimension; nothing of
        that where there are no rounds.
    """
    recorder = _recorder.get()
    if recorder is not None:
        return recorder.repeat(body, carried, rounds)
    left: dict[str, list[Tensor]] = {}
    for index in range(rounds):
        carried, leaves = body(index, carried)
        for name, value in leaves.items():
            left.setdefault(name, []).append(value)
    return carried, {name: torch.stack(values) for name, values in left.items()}


def row(table: Tensor, index: Index) -> Tensor:
    """The row of `table` [R, ...] with that number, the last one for all beyond."""
    last = table.shape[0] - 1
    return _select(table, 0, min(index, last) if isinstance(index, int) else index.clamp(max=last))


def example(x: Tensor, index: Index) -> Tensor:
    """The example of x [T, N, ...] with that number, [T, ...]."""
    return _select(x, 1, index)


def _select(x: Tensor, dimension: int, index: Index) -> Tensor:
    if isinstance(index, int):
        return x.select(dimension, index)
    return x.index_select(dimension, index.reshape(1)).squeeze(dimension)


@contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """Inside, loops go to the recorder."""
    before = _recorder.set(recorder)
    try:
        yield
    finally:
        _recorder.reset(before)


_recorder: ContextVar[Recorder | None] = ContextVar("recorder", default=None)

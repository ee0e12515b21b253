"""Marks in a traced graph that say where a loop begins and ends.

Tracing runs a loop's body once, between marks. Marks are custom operators that stand for the number of the round, for
the values carried into and out of a round, and for the values stacked over all rounds. `loops.py` turns the nodes
between them into ONNX Loops.
"""

from typing import Any

import torch
from torch import Tensor

from innerloop_learner.loops import Body
from innerloop_learner.tasks import Params

DOMAIN = "innerloop"
ROUND, ENTER, LEAVE, COLLECT = "Round", "Enter", "Leave", "Collect"
LOOP, SLOT = "loop", "slot"


class MarkingRecorder:
    """Puts marks around the body of each loop.

    Args:
        counted: a tensor [R] whose size R stands for the number of rounds, where that is an input of the graph.
    """

    def __init__(self, counted: Tensor) -> None:
        self._counted = counted
        self._loops = 0

    def repeat(self, body: Body, carried: Params, rounds: Any) -> tuple[Params, Params]:
        """See `innerloop_learner.loops.repeat`."""
        loop, self._loops = self._loops, self._loops + 1
        if isinstance(rounds, Tensor):
            number, size = rounds, self._counted.shape[0]
        else:
            number, size = torch.scalar_tensor(rounds, dtype=torch.int64), rounds
        index = _mark(ROUND, [number], number.shape, loop, 0)
        inside = {
            name: _mark(ENTER, [value, number], value.shape, loop, slot)
            for slot, (name, value) in enumerate(carried.items())
        }
        after, left = body(index, inside)
        after = {name: after[name] for name in carried}
        # Every carried value passes through a mark, so that none is removed as unused.
        every = [*after.values(), *inside.values()]
        gathered = {
            name: _mark(COLLECT, [value, *every], (size, *value.shape), loop, slot)
            for slot, (name, value) in enumerate(left.items())
        }
        return {
            name: _mark(LEAVE, [after[name], *every], carried[name].shape, loop, slot)
            for slot, name in enumerate(carried)
        }, gathered


def _mark(kind: str, values: list[Tensor], shape: Any, loop: int, slot: int) -> Tensor:
    """Put a mark on `values`; its output has the type of the first of them, and the given shape."""
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::{kind}", values, {LOOP: loop, SLOT: slot}, dtype=values[0].dtype, shape=shape, version=1
    )

"""The tasks of a batch that one process computes, and how the results of all are put together."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from innerloop_learner.parts import Part
from innerloop_learner.tasks import Params
from innerloop_trainer.outer_loop import Estimate
from innerloop_trainer.parallel.group import Group


class Shard(Part):
    """One process's tasks: a run of neighbours, as many as in every other process or one more.

    Args:
        group: processes that compute the batch together.
        tasks: number of tasks of the batch, at least one for each process.

    Attributes:
        rows: the tasks, by their numbers.
    """

    def __init__(self, group: Group, tasks: int) -> None:
        self._group, self._tasks = group, tasks
        self.rows = rows_of(group.rank, group.size, tasks)
        self._weight = (self.rows.stop - self.rows.start) / tasks

    def total(self, tasks: int) -> int:
        """See Part.total."""
        if tasks != self.rows.stop - self.rows.start:
            raise ValueError("numbers are drawn for all tasks of a part of a batch, or for none")
        return self._tasks

    def own(self, values: Tensor) -> Tensor:
        """See Part.own."""
        return values[self.rows]

    def mean(self, value: Tensor) -> Tensor:
        """See Part.mean."""
        return self._group.sum(value.detach() * self._weight)

    def sum(self, value: Tensor) -> Tensor:
        """See Part.sum."""
        summed: Tensor = _Sum.apply(value, self._group.sum, self._weight, False)  # type: ignore[no-untyped-call]
        return summed

    def averaged(self, params: Params) -> Params:
        """The means over the batch of tensors by name, which all processes have under the same names."""
        return self._summed({name: value * self._weight for name, value in params.items()})

    def whole(self, estimate: Estimate) -> Estimate:
        """The estimate of the whole batch, from that of this part; what is carried is the same in all parts."""
        own = self.rows
        outputs = estimate.outputs.new_zeros(self._tasks, *estimate.outputs.shape[1:])
        outputs[own] = estimate.outputs
        found = {
            **{f"gradients.{name}": value * self._weight for name, value in estimate.gradients.items()},
            **{f"buffers.{name}": value * self._weight for name, value in estimate.buffers.items()},
            "loss": estimate.loss * self._weight,
            "outputs": outputs,
        }
        summed = self._summed(found)
        return replace(
            estimate,
            gradients={name: summed[f"gradients.{name}"] for name in estimate.gradients},
            buffers={name: summed[f"buffers.{name}"] for name in estimate.buffers},
            loss=summed["loss"],
            outputs=summed["outputs"],
        )

    def _summed(self, tensors: Params) -> Params:
        """The sums over processes, in one message for each type of numbers."""
        summed: Params = {}
        for dtype in {value.dtype: None for value in tensors.values()}:
            names = [name for name, value in tensors.items() if value.dtype == dtype]
            flat = self._group.sum(torch.cat([tensors[name].flatten() for name in names]))
            parts = torch.split(flat, [tensors[name].numel() for name in names])
            summed |= {name: part.view(tensors[name].shape) for name, part in zip(names, parts, strict=True)}
        return summed


def rows_of(rank: int, size: int, tasks: int) -> slice:
    """The tasks of a process, by its number and the number of processes.

    >>> [rows_of(rank, 3, 8) for rank in range(3)]
    [slice(0, 2, None), slice(2, 5, None), slice(5, 8, None)]
    """
    return slice(tasks * rank // size, tasks * (rank + 1) // size)


class _Sum(torch.autograd.Function):
    """The sum over processes, or with weights that of weighted values, in parts of this process's weight.

    The gradients of all processes are averaged by weight w_r afterwards. So with y = sum_r x_r in every process, the
    gradient of x_r is sum_s w_s g_s / w_r, and the gradient of that is a plain sum again.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, add: Callable[[Tensor], Tensor], weight: float, weighted: bool) -> Tensor:
        """See torch.autograd.Function."""
        ctx.add, ctx.weight, ctx.weighted = add, weight, weighted
        return add(value * weight) / weight if weighted else add(value.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """See torch.autograd.Function."""
        found = _Sum.apply(gradients[0], ctx.add, ctx.weight, not ctx.weighted)  # type: ignore[no-untyped-call]
        return found, None, None, None

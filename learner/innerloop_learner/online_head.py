"""A linear head that learns one example after the other, for any number of classes."""

import math

import torch
from torch import Tensor

from innerloop_learner.importances import Importance, OnlineStep
from innerloop_learner.layers import linear
from innerloop_learner.loops import Index, example, repeat
from innerloop_learner.losses import log_weights
from innerloop_learner.state import prefixed
from innerloop_learner.tasks import Params, Support, TaskState

START, LOG_RATE = "online.start", "online.log_rate"

ROWS, NEXT = "rows", "next_row"
"""The rows of classes [T, W, F + 1], and the row that the next class begins with [T, 1, F + 1]."""

IMPORTANCE = "importance."
"""Prefix of the names of their importances, where these are kept."""


class OnlineHead:
    """A linear head with N outputs, of which classes take one after the other; each example is one step of SGD.

        p = softmax(H x) over all N outputs,   H <- H - a (p - e_y) x'     for example (x, y), with a one behind x

    Outputs that no class has taken yet begin with the same row, and every step changes them in the same way. So one row
    stands for all of them: the head keeps a row for each class, and the row that the next class begins with. The first
    such row and the logarithm of the rate a are meta-learned.

    Args:
        features: number of features F of an example.
        outputs: N, outputs over which the softmax of a step goes; at least as many as there are classes.
        rate: rate a before training.
        importance: what divides the steps on weights that earlier examples relied on.
    """

    def __init__(self, features: int, outputs: int, rate: float, importance: Importance) -> None:
        self._features, self._outputs, self._rate = features, outputs, rate
        self._importance = importance

    def with_outputs(self, outputs: int) -> "OnlineHead":
        """The same head with another number N of outputs."""
        return OnlineHead(self._features, outputs, self._rate, self._importance)

    def init(self) -> Params:
        """Fresh parameters: the first row [F + 1], zero, the rate, and strengths of the importance."""
        row, rate = torch.zeros(self._features + 1), torch.tensor(math.log(self._rate))
        return {START: row, LOG_RATE: rate, **self._importance.init(self._features + 1)}

    def start(self, params: Params, tasks: int, classes: int) -> TaskState:
        """The state before the first example, for W classes; its tensors are those of `resumed`."""
        return self.resumed(params, params[START].expand(tasks, classes, -1))

    def resumed(self, params: Params, rows: Tensor) -> TaskState:
        """The state of rows [T, W, F + 1] that no example has relied on yet.

        Returns:
            rows [T, W, F + 1], the next row [T, 1, F + 1], and the same of importances where they are kept.
        """
        state = {ROWS: rows, NEXT: params[START].expand(rows.shape[0], 1, -1)}
        kept = {name: torch.zeros_like(value) for name, value in state.items()} if self._importance.counts else {}
        return {**state, **prefixed(IMPORTANCE, kept)}

    def widened(self, state: TaskState, classes: int) -> TaskState:
        """The state for so many classes; new ones begin with the next row, as it has become."""

        def rows(prefix: str) -> Tensor:
            old, next_row = state[prefix + ROWS], state[prefix + NEXT]
            return torch.cat([old, next_row.expand(-1, classes - old.shape[1], -1)], 1)

        wide = {ROWS: rows(""), **({IMPORTANCE + ROWS: rows(IMPORTANCE)} if self._importance.counts else {})}
        return {name: wide.get(name, state[name]) for name in self._names}

    def learn(self, params: Params, state: TaskState, features: Tensor, support: Support) -> TaskState:
        """Take one step for each example, in their order; padding takes none.

        Args:
            params: meta-learned parameters.
            state: what `start`, `resumed`, `widened` or `learn` returned, for `support.max_ways` classes.
            features: features of the examples [T, S, F].
            support: their labels.
        """
        x, real, rate = _with_one(features), support.mask.to(features.dtype), params[LOG_RATE].exp()

        def step(index: Index, carried: TaskState) -> tuple[TaskState, TaskState]:
            new = self._step(params, rate, carried, example(x, index), example(support.y, index), example(real, index))
            return new, {}

        return repeat(step, {name: state[name] for name in self._names}, x.shape[1])[0]

    def outputs(self, state: TaskState, features: Tensor) -> Tensor:
        """Outputs [T, N, W] of the classes, for features [T, N, F]."""
        rows = state[ROWS]
        return linear(features, rows[..., :-1], rows[..., -1])

    @property
    def _names(self) -> list[str]:
        names = [ROWS, NEXT]
        return [*names, *(IMPORTANCE + name for name in names)] if self._importance.counts else names

    def _step(
        self, params: Params, rate: Tensor, state: TaskState, x: Tensor, labels: Tensor, real: Tensor
    ) -> TaskState:
        """The state after one example of each task: features and a one [T, F + 1], label [T], and 0 for padding [T]."""
        outputs = {name: (state[name] @ x.unsqueeze(2)).squeeze(2) for name in (ROWS, NEXT)}  # [T, W], [T, 1]
        residuals = self._probabilities(outputs[ROWS], outputs[NEXT])
        classes = torch.arange(outputs[ROWS].shape[1], device=x.device)
        residuals[ROWS] = residuals[ROWS] - (labels.unsqueeze(1) == classes).to(x.dtype)
        new: TaskState = {}
        for name in (ROWS, NEXT):
            taken = OnlineStep(x, outputs[name], residuals[name] * real.unsqueeze(1))
            if not self._importance.counts:
                new[name] = torch.baddbmm(state[name], (rate * taken.residuals).unsqueeze(2), x.unsqueeze(1), alpha=-1)
                continue
            before = state[IMPORTANCE + name]
            new[name] = state[name] - rate * taken.gradients / self._importance.divisors(params, before, rate)
            new[IMPORTANCE + name] = before + self._importance.relied(taken) * real[:, None, None]
        return new

    def _probabilities(self, classes: Tensor, next_class: Tensor) -> dict[str, Tensor]:
        """The probability of one output of each class [T, W], and of one that no class has taken [T, 1]."""
        left = self._outputs - torch.ones_like(classes).sum(1, keepdim=True)
        total = torch.logaddexp(classes.logsumexp(1, keepdim=True), next_class + log_weights(left))
        # Where no output is left, what stands for none may be larger than all.
        return {ROWS: (classes - total).exp(), NEXT: (next_class - total).clamp(max=0).exp()}


def _with_one(features: Tensor) -> Tensor:
    return torch.cat([features, torch.ones_like(features[..., :1])], -1)

"""A linear head that learns one example after the other, for any number of classes."""

import math

import torch
from torch import Tensor

from innerloop_learner.importances import Importance, OnlineStep
from innerloop_learner.layers import linear
from innerloop_learner.loops import Index, example, repeat
from innerloop_learner.losses import log_weights
from innerloop_learner.tasks import Params, Support, TaskState

START, LOG_RATE, LOG_SCALE = "online.start", "online.log_rate", "online.log_scale"

ROWS, NEXT, IMPORTANCE = "rows", "next_row", "importance"
"""Rows of classes [T, W, F + 1], the row that the next class begins with [T, 1, F + 1], and the importance of rows."""


class OnlineHead:
    """A linear head with N outputs, of which classes take one after the other; each example is one step of SGD.

        p = softmax(H x) over all N outputs,   H <- H - a (p - e_y) x'     for example (x, y), with a one behind x

    Outputs that no class has taken yet begin with the same row, and every step changes them in the same way. So one row
    stands for all of them: the head keeps a row for each class, and the row that the next class begins with. The first
    such row and the logarithm of the rate a are meta-learned, and so is that of a factor of answers, which steps do not
    see: what few small steps add up to is too little for a softmax.

    Args:
        features: number of features F of an example.
        outputs: N, outputs over which the softmax of a step goes; at least as many as there are classes.
        rate: rate a before training.
        scale: factor of answers before training.
        importance: what divides the steps on weights that earlier examples relied on.
    """

    def __init__(self, features: int, outputs: int, rate: float, scale: float, importance: Importance) -> None:
        self._features, self._outputs, self._rate, self._scale = features, outputs, rate, scale
        self._importance = importance

    def with_outputs(self, outputs: int) -> "OnlineHead":
        """The same head with another number N of outputs."""
        return OnlineHead(self._features, outputs, self._rate, self._scale, self._importance)

    def init(self) -> Params:
        """Fresh parameters: the first row [F + 1], zero, the rate, the factor, and strengths of the importance."""
        numbers = {name: torch.tensor(math.log(n)) for name, n in ((LOG_RATE, self._rate), (LOG_SCALE, self._scale))}
        inputs = self._features + 1
        return {START: torch.zeros(inputs), **numbers, **self._importance.init(inputs)}

    def start(self, params: Params, tasks: int, classes: int) -> TaskState:
        """The state before the first example, for W classes; its tensors are those of `resumed`."""
        return self.resumed(params, params[START].expand(tasks, classes, -1))

    def resumed(self, params: Params, rows: Tensor) -> TaskState:
        """The state of rows [T, W, F + 1] that no example has relied on yet.

        Returns:
            rows [T, W, F + 1], the next row [T, 1, F + 1], and importances of rows [T, W, F + 1] where they are kept.
        """
        state = {ROWS: rows, NEXT: params[START].expand(rows.shape[0], 1, -1)}
        return {**state, IMPORTANCE: torch.zeros_like(rows)} if self._importance.counts else state

    def widened(self, state: TaskState, classes: int) -> TaskState:
        """The state for so many classes; new ones begin with the next row, as it has become."""
        old, next_row = state[ROWS], state[NEXT]
        new = next_row.expand(-1, classes - old.shape[1], -1)
        wide = {ROWS: torch.cat([old, new], 1), NEXT: next_row}
        if not self._importance.counts:
            return wide
        return {**wide, IMPORTANCE: torch.cat([state[IMPORTANCE], torch.zeros_like(new)], 1)}

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

        kept = {name: state[name] for name in (ROWS, NEXT, IMPORTANCE) if name in state}
        return repeat(step, kept, x.shape[1])[0]

    def outputs(self, params: Params, state: TaskState, features: Tensor) -> Tensor:
        """Logits [T, N, W] of the classes, for features [T, N, F]."""
        rows = state[ROWS]
        return params[LOG_SCALE].exp() * linear(features, rows[..., :-1], rows[..., -1])

    def _step(
        self, params: Params, rate: Tensor, state: TaskState, x: Tensor, labels: Tensor, real: Tensor
    ) -> TaskState:
        """The state after one example of each task: features and a one [T, F + 1], label [T], and 0 for padding [T]."""
        classes, next_class = ((state[name] @ x.unsqueeze(2)).squeeze(2) for name in (ROWS, NEXT))  # [T, W], [T, 1]
        own = (labels.unsqueeze(1) == torch.arange(classes.shape[1], device=x.device)).to(x.dtype)
        of_classes, of_next = self._probabilities(classes, next_class)
        taken = OnlineStep(x, classes, (of_classes - own) * real.unsqueeze(1))
        new = {NEXT: _moved(state[NEXT], rate * of_next * real.unsqueeze(1), x)}
        if not self._importance.counts:
            return {ROWS: _moved(state[ROWS], rate * taken.residuals, x), **new}
        before = state[IMPORTANCE]
        rows = state[ROWS] - rate * taken.gradients / self._importance.divisors(params, before, rate)
        relied = self._importance.relied(taken) * (own * real.unsqueeze(1)).unsqueeze(2)
        return {ROWS: rows, **new, IMPORTANCE: before + relied}

    def _probabilities(self, classes: Tensor, next_class: Tensor) -> tuple[Tensor, Tensor]:
        """The probability of one output of each class [T, W], and of one that no class has taken [T, 1]."""
        left = self._outputs - torch.ones_like(classes).sum(1, keepdim=True)
        # Second derivatives of logaddexp are NaN where no output is left; those of logsumexp are right.
        total = torch.cat([classes, next_class + log_weights(left)], 1).logsumexp(1, keepdim=True)
        # If no output is left, the total does not contain `next_class`, which may then be larger than the total.
        return (classes - total).exp(), (next_class - total).clamp(max=0).exp()


def _moved(rows: Tensor, by: Tensor, x: Tensor) -> Tensor:
    """Rows [T, R, F], each moved against x [T, F] by its own number [T, R]."""
    return torch.baddbmm(rows, by.unsqueeze(2), x.unsqueeze(1), alpha=-1)


def _with_one(features: Tensor) -> Tensor:
    return torch.cat([features, torch.ones_like(features[..., :1])], -1)

"""A long short-term memory cell, written out, because cuDNN's cannot be differentiated twice."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.layers import glorot
from innerloop_learner.tasks import Params


class LSTMState(NamedTuple):
    """The state that a cell hands to its next step.

    Attributes:
        hidden: the cell's output h [..., H].
        cell: the cell's memory c [..., H].
    """

    hidden: Tensor
    cell: Tensor


class LSTMCell:
    """One LSTM layer (Hochreiter and Schmidhuber 1997, with the forget gate of Gers, Schmidhuber and Cummins 2000).

        i, f, o = sigmoid(W [x, h] + b),   g = tanh(W' [x, h] + b'),   c' = f * c + i * g,   h' = o * tanh(c')

    Args:
        name: prefix of the names of its parameters.
        inputs: size I of x.
        hidden: size H of h and c.
    """

    def __init__(self, name: str, inputs: int, hidden: int) -> None:
        self._weight, self._bias = f"{name}.weight", f"{name}.bias"
        self._inputs, self.hidden = inputs, hidden

    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters. The forget gate starts open, so that gradients flow through many steps at first."""
        bias = torch.zeros(4 * self.hidden)
        bias[self.hidden : 2 * self.hidden] = 1.0
        return {self._weight: glorot(generator, 4 * self.hidden, self._inputs + self.hidden), self._bias: bias}

    def start(self, like: Tensor) -> LSTMState:
        """The state before the first step on inputs `like` [..., I]: zeros."""
        zeros = like.new_zeros(*like.shape[:-1], self.hidden)
        return LSTMState(zeros, zeros)

    def step(self, params: Params, x: Tensor, state: LSTMState) -> LSTMState:
        """The state after input x [..., I], whose leading dimensions are those of the state."""
        # Gates are computed one by one, since sigmoids of slices of one tensor take a CPU several times as long.
        inputs, weights, biases = torch.cat([x, state.hidden], -1), params[self._weight], params[self._bias]
        write, keep, read, new = (
            F.linear(inputs, weight, bias) for weight, bias in zip(weights.chunk(4), biases.chunk(4), strict=True)
        )
        cell = keep.sigmoid() * state.cell + write.sigmoid() * new.tanh()
        return LSTMState(read.sigmoid() * cell.tanh(), cell)


def blend(before: Params, after: Params, shares: Tensor) -> Params:
    """Move states [T, ...] a share [T] of the way from `before` to `after`; shares 0 and 1 give exactly one of the two.

    Example:
        >>> before, after = {"h": torch.zeros(2, 1)}, {"h": torch.ones(2, 1)}
        >>> blend(before, after, torch.tensor([0.25, 1.0]))
        {'h': tensor([[0.2500],
                [1.0000]])}
    """

    def between(old: Tensor, new: Tensor) -> Tensor:
        share = shares.view(-1, *[1] * (old.dim() - 1))
        return share * new + (1 - share) * old

    return {name: between(old, after[name]) for name, old in before.items()}

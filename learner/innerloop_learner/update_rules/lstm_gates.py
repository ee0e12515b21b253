"""An update rule whose memory cell is the weights themselves."""

import math

import torch
from torch import Tensor

from innerloop_learner.layers import glorot
from innerloop_learner.recurrent import LSTMCell, LSTMState
from innerloop_learner.tasks import Params
from innerloop_learner.update_rules.coordinates import flatten, log_and_sign, unflatten
from innerloop_learner.update_rules.update_rule import Step, Updated, UpdateRule, update_rules

OPEN = 6.0
"""Initial bias of the forget gate: sigmoid(6) is 0.9975, so a step shrinks weights by 0.25% at first."""


@update_rules.register("lstm_gates")
class LSTMGates(UpdateRule):
    """An LSTM's cell update with the weights as cell state (Ravi and Larochelle 2017, equations 2 to 4).

        w_t = f_t * w_{t-1} - i_t * gradient_t,
        i_t = sigmoid(W_i [h_t, w_{t-1}, i_{t-1}] + b_i),   f_t = sigmoid(W_f [h_t, w_{t-1}, f_{t-1}] + b_f)

    h_t is the state of an LSTM that reads size and sign of gradient and loss (section 3.2); all coordinates share its
    weights. At first i is about `rate` and f close to 1, so that meta-training starts near plain gradient descent.

    Args:
        rate: initial value of the input gates, between 0 and 1.
        hidden: number of units of the LSTM.

    Raises:
        ValueError: a rate outside 0 to 1, or no units.
    """

    def __init__(self, rate: float, hidden: int = 20) -> None:
        if not 0 < rate < 1:
            raise ValueError(f"the inner rate must lie between 0 and 1, not {rate}")
        if hidden < 1:
            raise ValueError(f"hidden must be at least 1, not {hidden}")
        self._rate = rate
        self._cell = LSTMCell("rule.lstm", 4, hidden)

    def init(self, generator: torch.Generator, weights: Params) -> Params:
        """See UpdateRule.init."""
        del weights
        params = self._cell.init(generator)
        for gate, bias in (("input", math.log(self._rate / (1 - self._rate))), ("forget", OPEN)):
            params[f"rule.{gate}.weight"] = glorot(generator, 1, self._cell.hidden + 2).squeeze(0)
            params[f"rule.{gate}.bias"] = torch.tensor(bias)
        return params

    def start(self, params: Params, weights: Params) -> Params:
        """See UpdateRule.start; states [T, P, H] start at zero, gates [T, P] at the values that their biases give."""
        coordinates = flatten(weights)
        zeros = coordinates.new_zeros(*coordinates.shape, self._cell.hidden)
        gates = {g: params[f"rule.{g}.bias"].sigmoid().expand_as(coordinates) for g in ("input", "forget")}
        return {"hidden": zeros, "cell": zeros, **gates}

    def update(self, params: Params, state: Params, step: Step) -> Updated:
        """See UpdateRule.update."""
        gradients, weights = flatten(step.gradients).detach(), flatten(step.weights)
        losses = step.losses.detach().unsqueeze(1).expand_as(gradients)
        x = torch.cat([log_and_sign(gradients), log_and_sign(losses)], -1)
        lstm = self._cell.step(params, x, LSTMState(state["hidden"], state["cell"]))
        write = self._gate("input", params, lstm.hidden, weights, state["input"])
        keep = self._gate("forget", params, lstm.hidden, weights, state["forget"])
        after = unflatten(keep * weights - write * gradients, step.weights)
        return Updated(after, {"hidden": lstm.hidden, "cell": lstm.cell, "input": write, "forget": keep})

    def _gate(self, name: str, params: Params, hidden: Tensor, weights: Tensor, before: Tensor) -> Tensor:
        """A gate [T, P] from the LSTM's state [T, P, H], weights and its own value before."""
        weight, bias = params[f"rule.{name}.weight"], params[f"rule.{name}.bias"]
        of_hidden, of_weight, of_before = weight[:-2], weight[-2], weight[-1]
        return (hidden @ of_hidden + weights * of_weight + before * of_before + bias).sigmoid()

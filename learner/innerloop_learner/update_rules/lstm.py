"""An update rule that is a recurrent network."""

import torch

from innerloop_learner.recurrent import LSTMCell, LSTMState
from innerloop_learner.tasks import Params
from innerloop_learner.update_rules.coordinates import flatten, log_and_sign, unflatten
from innerloop_learner.update_rules.update_rule import Step, Updated, UpdateRule, check_rate, update_rules

OUTPUT = "rule.output"


@update_rules.register("lstm")
class LSTMRule(UpdateRule):
    """An LSTM that all coordinates share takes the steps (Andrychowicz et al. 2016).

        w <- w + rate * m(gradient, state)

    m has two LSTM layers and a linear output (section 2.1); each coordinate has a state of its own. m reads gradients
    as size and sign (appendix A), and the outer gradient takes gradients as constants (figure 2).

    Args:
        rate: factor of the network's output.
        hidden: units of each layer.

    Raises:
        ValueError: the rate is not positive, or there are no units.
    """

    def __init__(self, rate: float, hidden: int = 20) -> None:
        check_rate(rate)
        if hidden < 1:
            raise ValueError(f"hidden must be at least 1, not {hidden}")
        self._rate = rate
        self._cells = (LSTMCell("rule.lstm0", 2, hidden), LSTMCell("rule.lstm1", hidden, hidden))

    def init(self, generator: torch.Generator, weights: Params) -> Params:
        """See UpdateRule.init; shapes do not depend on the weights, so a rule can be used for another backbone."""
        del weights
        first, second = self._cells
        output = torch.empty(second.hidden).uniform_(-1, 1, generator=generator) / second.hidden
        return {**first.init(generator), **second.init(generator), OUTPUT: output}

    def start(self, params: Params, weights: Params) -> Params:
        """See UpdateRule.start; hidden and cell states [T, P, H] start at zero."""
        del params
        coordinates = flatten(weights)
        zeros = coordinates.new_zeros(*coordinates.shape, self._cells[0].hidden)
        return {f"{part}{layer}": zeros for layer in range(2) for part in ("hidden", "cell")}

    def update(self, params: Params, state: Params, step: Step) -> Updated:
        """See UpdateRule.update."""
        x = log_and_sign(flatten(step.gradients).detach())
        after: Params = {}
        for layer, cell in enumerate(self._cells):
            new = cell.step(params, x, LSTMState(state[f"hidden{layer}"], state[f"cell{layer}"]))
            after |= {f"hidden{layer}": new.hidden, f"cell{layer}": new.cell}
            x = new.hidden
        change = unflatten(self._rate * (x @ params[OUTPUT]), step.weights)
        return Updated({name: weight + change[name] for name, weight in step.weights.items()}, after)

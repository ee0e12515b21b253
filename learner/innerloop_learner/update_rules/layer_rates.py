"""Gradient descent with a learned rate for every layer and step."""

import torch

from innerloop_learner.loops import row
from innerloop_learner.tasks import Params
from innerloop_learner.update_rules.update_rule import Step, Updated, UpdateRule, check_rate, update_rules

PREFIX = "rate."


@update_rules.register("layer_rates")
class LayerRates(UpdateRule):
    """Gradient descent, a learned rate per layer and step (MAML++, Antoniou et al. 2019, section 4, LSLR).

        w <- w - a_{l,k} * gradient      for weight tensor l and step k

    A step past the last one that has rates of its own takes the rates of that one.

    Args:
        rate: initial value of all rates.
        steps: number of steps that have rates of their own.

    Raises:
        ValueError: the rate is not positive, or there are no steps.
    """

    def __init__(self, rate: float, steps: int = 5) -> None:
        check_rate(rate)
        if steps < 1:
            raise ValueError(f"steps must be at least 1, not {steps}")
        self._rate, self._steps = rate, steps

    def init(self, generator: torch.Generator, weights: Params) -> Params:
        """See UpdateRule.init; each weight tensor has rates [steps]."""
        del generator
        return {PREFIX + name: torch.full((self._steps,), self._rate) for name in weights}

    def update(self, params: Params, state: Params, step: Step) -> Updated:
        """See UpdateRule.update."""
        rates = {name: row(params[PREFIX + name], step.index) for name in step.weights}
        weights = {name: weight - rates[name] * step.gradients[name] for name, weight in step.weights.items()}
        return Updated(weights, state)

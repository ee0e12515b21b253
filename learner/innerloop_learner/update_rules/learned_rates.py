"""Gradient descent with a learned rate for every weight."""

import torch

from innerloop_learner.tasks import Params
from innerloop_learner.update_rules.update_rule import Step, Updated, UpdateRule, check_rate, update_rules

PREFIX = "rate."


@update_rules.register("learned_rates")
class LearnedRates(UpdateRule):
    """Gradient descent with a learned rate for every weight (Meta-SGD, Li et al. 2017, equation 2).

        w <- w - a * gradient      with a learned vector a of the shape of w

    Rates may become negative, so the rule learns directions as well as sizes.

    Args:
        rate: initial value of all rates.

    Raises:
        ValueError: the rate is not a positive number.
    """

    def __init__(self, rate: float) -> None:
        check_rate(rate)
        self._rate = rate

    def init(self, generator: torch.Generator, weights: Params) -> Params:
        """See UpdateRule.init."""
        del generator
        return {PREFIX + name: torch.full_like(weight, self._rate) for name, weight in weights.items()}

    def update(self, params: Params, state: Params, step: Step) -> Updated:
        """See UpdateRule.update."""
        weights = {name: weight - params[PREFIX + name] * step.gradients[name] for name, weight in step.weights.items()}
        return Updated(weights, state)

"""Gradient descent with a fixed rate."""

from innerloop_learner.tasks import Params
from innerloop_learner.update_rules.update_rule import Step, Updated, UpdateRule, check_rate, update_rules


@update_rules.register("sgd")
class SGD(UpdateRule):
    """Gradient descent: w <- w - rate * gradient (Finn et al. 2017, equation 1).

    Args:
        rate: step size, greater than zero.

    Example:
        >>> import torch
        >>> one = torch.ones(1)
        >>> step = Step(index=0, weights={"w": one}, gradients={"w": 2 * one}, losses=one)
        >>> SGD(rate=0.25).update({}, {}, step).weights
        {'w': tensor([0.5000])}

    Raises:
        ValueError: the rate is not a positive number.
    """

    def __init__(self, rate: float) -> None:
        check_rate(rate)
        self.rate = rate

    def update(self, params: Params, state: Params, step: Step) -> Updated:
        """See UpdateRule.update."""
        del params
        weights = {name: weight.sub(step.gradients[name], alpha=self.rate) for name, weight in step.weights.items()}
        return Updated(weights, state)

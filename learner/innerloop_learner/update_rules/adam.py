"""Adam without momentum."""

import torch

from innerloop_learner.loops import Index
from innerloop_learner.tasks import Params
from innerloop_learner.update_rules.update_rule import Step, Updated, UpdateRule, check_rate, update_rules

EPSILON = 1e-8


@update_rules.register("adam")
class Adam(UpdateRule):
    """Adam without momentum (Kingma and Ba 2015, algorithm 1, with b1 = 0).

    Reptile's inner loops take it (Nichol et al. 2018, section 6).

        v_t = b v_{t-1} + (1 - b) g^2,   w <- w - rate * g / sqrt(v_t / (1 - b^t) + epsilon^2),   v_0 = 0 for every task

    Args:
        rate: step size.
        decay: decay rate b of the average of squared gradients.

    Raises:
        ValueError: a rate that is not positive, or a decay outside 0 to 1.
    """

    def __init__(self, rate: float, decay: float = 0.999) -> None:
        check_rate(rate)
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be at least 0 and less than 1, not {decay}")
        self._rate, self._decay = rate, decay

    def start(self, params: Params, weights: Params) -> Params:
        """See UpdateRule.start; the averages of squared gradients start at zero."""
        del params
        return {name: torch.zeros_like(value) for name, value in weights.items()}

    def update(self, params: Params, state: Params, step: Step) -> Updated:
        """See UpdateRule.update."""
        del params
        squares = {name: state[name].lerp(g.square(), 1 - self._decay) for name, g in step.gradients.items()}
        correction = 1 - _power(self._decay, step.index + 1)
        # A root has no derivative at zero; epsilon inside it keeps second derivatives finite.
        sizes = {name: (value / correction + EPSILON**2).sqrt() for name, value in squares.items()}
        weights = {
            name: weight - self._rate * step.gradients[name] / sizes[name] for name, weight in step.weights.items()
        }
        return Updated(weights, squares)


def _power(base: float, exponent: Index) -> Index | float:
    """A power in double precision, because 1 - b^t is a small difference that single precision would spoil.

    While a graph is recorded, the exponent is a tensor, and so is the power.
    """
    if isinstance(exponent, int):
        return base**exponent
    return torch.full_like(exponent, base, dtype=torch.float64).pow(exponent)

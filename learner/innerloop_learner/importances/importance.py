"""The interface of importances."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from innerloop_learner.registry import Registry
from innerloop_learner.tasks import Params

LOG_STRENGTH = "importance.log_strength"
"""Name of the logarithms of the strengths, one for each input of the head."""


@dataclass(frozen=True)
class OnlineStep:
    """What one example does to a head of R rows.

    Attributes:
        x: the example's features, a one behind them, [T, F].
        outputs: outputs of the head for it, [T, R].
        residuals: gradient of its loss with respect to these outputs, [T, R].
    """

    x: Tensor
    outputs: Tensor
    residuals: Tensor

    @property
    def gradients(self) -> Tensor:
        """Gradient of the loss with respect to the head, [T, R, F]."""
        return self.residuals.unsqueeze(2) * self.x.unsqueeze(1)


class Importance(ABC):
    """Divides steps on weights by how much earlier examples of their class relied on them.

    A step with rate a moves weights w against the gradient g, and is held by a quadratic penalty with strengths s and
    importances O, around the weights as they are (online EWC, Schwarz et al. 2018, equation 9):

        argmin_d  g d + d^2 / (2 a) + s O d^2 / 2  =  -a g / (1 + a s O),   then  O <- O + how much it relied on w

    An example relies on weights of the row of its own class only, so that classes to come have all steps before them.
    Strengths are learned, one for each input of the head; a subclass says what relying on a weight is.
    """

    first_strength: ClassVar[float]
    """Strengths before training."""

    counts: ClassVar[bool] = True
    """Whether it keeps anything."""

    def init(self, inputs: int) -> Params:
        """Fresh strengths for a head with so many inputs."""
        return {LOG_STRENGTH: torch.full((inputs,), math.log(self.first_strength))}

    @abstractmethod
    def relied(self, step: OnlineStep) -> Tensor:
        """How much an example relied on each weight, if it were of that row's class, [T, R, F]; not negative."""

    def divisors(self, params: Params, importance: Tensor, rate: Tensor) -> Tensor:
        """What the steps on all weights are divided by, [T, R, F], given their importance and the rate."""
        return 1 + rate * params[LOG_STRENGTH].exp() * importance


importances: Registry[type[Importance]] = Registry(
    "importance", "innerloop.importances", "innerloop_learner.importances"
)

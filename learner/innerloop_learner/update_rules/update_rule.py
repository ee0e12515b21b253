"""The interface of update rules."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from innerloop_learner.loops import Index
from innerloop_learner.registry import Registry
from innerloop_learner.tasks import Params


@dataclass(frozen=True)
class Step:
    """What an update rule may look at.

    Attributes:
        index: number of steps taken before.
        weights: [T, ...] each.
        gradients: of each task's support loss, [T, ...] each, by name of weight.
        losses: support loss [T] that the gradients belong to.
    """

    index: Index
    weights: Params
    gradients: Params
    losses: Tensor


class Updated(NamedTuple):
    """What an update rule returns.

    Attributes:
        weights: new weights, [T, ...] each.
        state: what the rule carries to its next step, [T, ...] each; empty for rules without memory.
    """

    weights: Params
    state: Params


class UpdateRule(ABC):
    """Turns gradients of the support loss into new weights; pure, differentiable, over a batch of tasks."""

    def init(self, generator: torch.Generator, weights: Params) -> Params:
        """Fresh meta-learned parameters of the rule for weights of these shapes (without task dimension)."""
        del generator, weights
        return {}

    def start(self, params: Params, weights: Params) -> Params:
        """The rule's state before its first step on weights [T, ...]."""
        del params, weights
        return {}

    @abstractmethod
    def update(self, params: Params, state: Params, step: Step) -> Updated:
        """Take one step.

        Args:
            params: meta-learned parameters, the rule's own among them.
            state: what `start` or the step before returned.
            step: weights and their gradients.
        """


def check_rate(rate: float) -> None:
    """Check the rate of an update rule, which the user sets.

    Raises:
        ValueError: it is not a positive number.
    """
    if not 0 < rate < math.inf:
        raise ValueError(f"the inner rate must be positive, not {rate}")


update_rules: Registry[Callable[..., UpdateRule]] = Registry("update rule", "innerloop.update_rules")

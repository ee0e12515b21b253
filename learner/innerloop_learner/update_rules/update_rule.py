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
    """The input of an update rule.

    Attributes:
        index: number of steps taken before.
        weights: weights of each task by name, [T, ...] each.
        gradients: gradient of each task's support loss with respect to each weight, [T, ...] each, by name of weight.
        losses: support losses [T] of these weights.
    """

    index: Index
    weights: Params
    gradients: Params
    losses: Tensor


class Updated(NamedTuple):
    """The result of an update rule.

    Attributes:
        weights: new weights, [T, ...] each.
        state: tensors that the rule hands to its next step, [T, ...] each; empty for rules without memory.
    """

    weights: Params
    state: Params


class UpdateRule(ABC):
    """Turns gradients of the support loss into new weights, for a batch of tasks; its functions are pure."""

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
            state: the state that `start` or the step before returned.
            step: weights, their gradients and losses.
        """


def check_rate(rate: float) -> None:
    """Check the step size of an update rule, which the user sets.

    Raises:
        ValueError: the step size is not a positive number.
    """
    if not 0 < rate < math.inf:
        raise ValueError(f"the inner rate must be positive, not {rate}")


update_rules: Registry[Callable[..., UpdateRule]] = Registry("update rule", "innerloop.update_rules")

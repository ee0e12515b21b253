"""The interface of weightings."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from innerloop_learner.registry import Registry
from innerloop_learner.tasks import Params, Support


class Weighting(ABC):
    """Gives every support example a weight among those of its class; its functions are pure."""

    def init(self, generator: torch.Generator) -> Params:
        """Fresh meta-learned parameters, named "weighting.*"; every example counts the same at first."""
        del generator
        return {}

    @abstractmethod
    def weigh(self, params: Params, support: Support, features: Callable[[], Tensor]) -> Tensor | None:
        """Weigh the examples of each task.

        Args:
            params: meta-learned parameters, the weighting's own among them.
            support: the labelled examples; where features were computed before, these stand in the place of inputs.
            features: gives their features [T, S, F] before anything adapts; called only if they are needed.

        Returns:
            weights [T, S], not negative and 1 on average over each class; 0 for padding. None if all count the same.
        """


weightings: Registry[type[Weighting]] = Registry("weighting", "innerloop.weightings", "innerloop_learner.weightings")

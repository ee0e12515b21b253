"""No importance: every weight takes whole steps."""

import torch
from torch import Tensor

from innerloop_learner.importances.importance import Importance, OnlineStep, importances
from innerloop_learner.tasks import Params


@importances.register("none")
class NoImportance(Importance):
    """Lets every example change every weight."""

    counts = False

    def init(self, inputs: int) -> Params:
        """No strengths."""
        del inputs
        return {}

    def relied(self, step: OnlineStep) -> Tensor:
        """See Importance.relied."""
        return torch.zeros_like(step.gradients)

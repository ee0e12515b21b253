"""Estimators of the meta-gradient: how good parameters are, and which way to change them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from innerloop_learner.learner import Learner, Stage
from innerloop_learner.tasks import Episodes, Params


@dataclass(frozen=True)
class Estimate:
    """What an estimator found on one batch of episodes.

    Attributes:
        gradients: of the outer loss, by name of parameter; buffers have none.
        buffers: new values of the buffers.
        loss: outer loss, a scalar.
        outputs: logits or values of the queries.
    """

    gradients: Params
    buffers: Params
    loss: Tensor
    outputs: Tensor


class MetaGradient(ABC):
    """Estimates the gradient of the outer loss; never sees what is inside a learner."""

    @abstractmethod
    def estimate(self, learner: Learner, params: Params, episodes: Episodes, stage: Stage) -> Estimate:
        """Evaluate `params` on a batch of episodes."""


class Backpropagation(MetaGradient):
    """Differentiates through adapting and predicting (Finn et al. 2017, equation 1)."""

    def estimate(self, learner: Learner, params: Params, episodes: Episodes, stage: Stage) -> Estimate:
        """See MetaGradient.estimate."""
        buffers = learner.buffers()
        learned = {name: value.detach().requires_grad_() for name, value in params.items() if name not in buffers}
        with torch.enable_grad():
            objective = learner.objective({**params, **learned}, episodes, stage)
            gradients = torch.autograd.grad(objective.loss, list(learned.values()), materialize_grads=True)
        return Estimate(
            # The gradient of a sum is one number seen many times over, which can't be changed in place.
            {name: gradient.contiguous() for name, gradient in zip(learned, gradients, strict=True)},
            objective.buffers,
            objective.loss.detach(),
            objective.outputs.detach(),
        )

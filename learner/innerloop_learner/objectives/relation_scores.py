"""The loss of relation networks."""

import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.losses import weighted_mean
from innerloop_learner.objectives.objective import objectives
from innerloop_learner.objectives.query_loss import QueryLoss


@objectives.register("relation_scores")
class RelationScores(QueryLoss):
    """Squared error of scores between 0 and 1 (Sung et al. 2018, equation 2).

    The learner gives their logits.

    loss = sum_k (r_k(x) - [y = k])^2
    """

    def loss(self, outputs: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
        """See QueryLoss.loss."""
        right = F.one_hot(targets, outputs.shape[-1]).to(outputs.dtype)
        return weighted_mean((outputs.sigmoid() - right).square().sum(-1), mask)

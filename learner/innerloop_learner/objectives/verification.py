"""The loss of siamese networks."""

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.losses import weighted_mean
from innerloop_learner.objectives.objective import objectives
from innerloop_learner.objectives.query_loss import QueryLoss


@objectives.register("verification")
class Verification(QueryLoss):
    """Whether two examples are of one class (Koch et al. 2015).

    The loss is the binary cross-entropy of queries against all classes.

    A query's right class and all of its wrong ones together weigh the same.
    """

    def loss(self, outputs: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
        """See QueryLoss.loss."""
        same = F.one_hot(targets, outputs.shape[-1]).to(outputs.dtype)
        unused = torch.isneginf(outputs)
        used = (1 - same).masked_fill(unused, 0.0)
        scores = outputs.masked_fill(unused, 0.0)
        right = (F.softplus(-scores) * same).sum(-1)
        wrong = (F.softplus(scores) * used).sum(-1) / used.sum(-1).clamp(min=1)
        return weighted_mean((right + wrong) / 2, mask)

"""Masked losses and the conventions of padded logits."""

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.spec import TaskKind

UNUSED_LOGIT = -1e9
"""Stands for -inf inside losses, where a true -inf would turn gradients of gradients into NaN."""


def unused_ways(ways: Tensor, max_ways: int) -> Tensor:
    """True for columns past each task's ways, [T, 1, W]."""
    return (torch.arange(max_ways, device=ways.device) >= ways.unsqueeze(1)).unsqueeze(1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` [T, N, ...] where `mask` [T, N] is true, [T, ...]; zero for a task without examples."""
    weights = mask.to(values.dtype).view(*mask.shape, *[1] * (values.dim() - 2))
    return (values * weights).sum(1) / weights.sum(1).clamp(min=1)


def task_loss(kind: TaskKind, outputs: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Mean loss of each task [T]: cross-entropy of logits [T, N, W], or squared error of values [T, N, D].

    Args:
        kind: of the tasks, which says which of the two.
        outputs: logits, unused columns at -inf or UNUSED_LOGIT; or values.
        targets: class indices [T, N] int64; or targets [T, N, D].
        mask: [T, N] bool, true for examples that count.
    """
    if kind == "classification":
        return classification_loss(outputs, targets, mask)
    return regression_loss(outputs, targets, mask)


def classification_loss(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of each task [T].

    Args:
        logits: [T, N, W], unused columns at -inf or UNUSED_LOGIT.
        labels: class indices [T, N] int64.
        mask: [T, N] bool.
    """
    log_probabilities = F.log_softmax(logits.clamp(min=UNUSED_LOGIT), dim=-1)
    return masked_mean(-log_probabilities.gather(-1, labels.unsqueeze(-1)).squeeze(-1), mask)


def regression_loss(values: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error of each task [T], from values and targets [T, N, D] and a mask [T, N] bool."""
    return masked_mean((values - targets).square().mean(-1), mask)

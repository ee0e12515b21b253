"""Weighted losses, and the conventions of padded logits."""

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.traits import TaskKind

UNUSED_LOGIT = -1e9
"""Stands for -inf inside losses, where a true -inf would turn gradients of gradients into NaN."""


def unused_ways(ways: Tensor, max_ways: int) -> Tensor:
    """True for columns past each task's ways, [T, 1, W]."""
    return (torch.arange(max_ways, device=ways.device) >= ways.unsqueeze(1)).unsqueeze(1)


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Mean of `values` [T, N, ...] over the examples of each task, [T, ...]; zero for a task without examples.

    Args:
        values: [T, N, ...].
        weights: how much each example counts, [T, N]: a mask, or numbers that are not negative.

    Example:
        >>> weighted_mean(torch.tensor([[1.0, 2.0, 6.0]]), torch.tensor([[True, True, False]]))
        tensor([1.5000])
        >>> weighted_mean(torch.tensor([[1.0, 2.0, 6.0]]), torch.tensor([[0.5, 0.5, 1.0]]))
        tensor([3.7500])
    """
    weights = weights.to(values.dtype).view(*weights.shape, *[1] * (values.dim() - 2))
    total = weights.sum(1).clamp(min=torch.finfo(weights.dtype).tiny)  # not zero
    return (values * weights).sum(1) / total


def task_loss(kind: TaskKind, outputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Mean loss of each task [T]: cross-entropy of logits [T, N, W], or squared error of values [T, N, D].

    Args:
        kind: kind of the tasks: cross-entropy for "classification", squared error for "regression".
        outputs: logits, unused columns at -inf or UNUSED_LOGIT; or values.
        targets: class indices [T, N] int64; or targets [T, N, D].
        weights: what each example counts, [T, N]; see `weighted_mean`.
    """
    if kind == "classification":
        return classification_loss(outputs, targets, weights)
    return regression_loss(outputs, targets, weights)


def log_weights(weights: Tensor) -> Tensor:
    """Logarithms of weights. Added to scores before a softmax, they let each example count by its weight.

    A weight of 0 gives UNUSED_LOGIT.

    Example:
        >>> (torch.tensor([0.0, 0.0, 0.0]) + log_weights(torch.tensor([0.5, 0.5, 1.0]))).softmax(-1)
        tensor([0.2500, 0.2500, 0.5000])
    """
    return weights.log().clamp(min=UNUSED_LOGIT)


def classification_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of each task [T].

    Args:
        logits: [T, N, W], unused columns at -inf or UNUSED_LOGIT.
        labels: class indices [T, N] int64.
        weights: what each example counts, [T, N]; see `weighted_mean`.
    """
    log_probabilities = F.log_softmax(logits.clamp(min=UNUSED_LOGIT), dim=-1)
    return weighted_mean(-log_probabilities.gather(-1, labels.unsqueeze(-1)).squeeze(-1), weights)


def regression_loss(values: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Mean squared error of each task [T], from values and targets [T, N, D] and weights of examples [T, N]."""
    return weighted_mean((values - targets).square().mean(-1), weights)

"""What methods share that learn more examples into a task state (`Learner.extend`)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.learner import TaskError
from innerloop_learner.tasks import Support, TaskState


def kept(state: TaskState, name: str) -> Tensor:
    """The tensor that a state keeps under a name, to be extended with.

    Raises:
        TaskError: there is none, as in states of before they could be extended.
    """
    if name not in state:
        raise TaskError(f"this adaptation does not hold {name!r}, without which it can't learn more; adapt anew")
    return state[name]


def widened(values: Tensor, ways: int) -> Tensor:
    """Values [..., W] for so many classes, zero for new ones.

    Example:
        >>> widened(torch.tensor([[2.0, 1.0]]), 3)
        tensor([[2., 1., 0.]])
    """
    return F.pad(values, (0, ways - values.shape[-1]))


def extended_means(means: Tensor, counts: Tensor, values: Tensor, support: Support) -> tuple[Tensor, Tensor]:
    """Class means of old and new examples together, and the numbers of examples.

        c_k <- (n_k c_k + sum of the new values of class k) / (n_k + m_k),   n_k <- n_k + m_k

    Args:
        means: class means of the old examples [T, V, F].
        counts: numbers of old examples [T, V].
        values: values of the new examples [T, S, F].
        support: the new examples, of W >= V classes, of which there are m_k of class k.

    Returns:
        means [T, W, F] and counts [T, W].
    """
    before = widened(counts, support.max_ways)
    after = before + support.counts(counts.dtype)
    old = widened(means.transpose(1, 2), support.max_ways).transpose(1, 2)
    # Shares that sum to 1 keep a mean as it is, to the bit, where a class has no new examples.
    new = support.members(values.dtype) / after.clamp(min=1).unsqueeze(1)
    return (before / after.clamp(min=1)).unsqueeze(-1) * old + new.transpose(1, 2) @ values, after


def appended(old: Tensor, new: Tensor) -> Tensor:
    """What belongs to old examples and what belongs to new ones, one after the other: [T, S + S', ...]."""
    return torch.cat([old, new.to(old.dtype)], 1)


def appended_members(old: Tensor, support: Support) -> Tensor:
    """The class of each example, old ones first, one-hot [T, S + S', W]; zero for padding.

    `old` [T, S, V] is not zero where an example belongs to a class, of which there may be fewer than W.
    """
    members = widened((old != 0).to(old.dtype), support.max_ways)
    return appended(members, support.members(old.dtype))

"""Names of tensors that the task states of several methods have in common."""

from innerloop_learner.tasks import Params, TaskState

WEIGHTS = "weights."
"""Prefix of the names of adapted weights, [T, ...] each."""

STATISTICS = "statistics."
"""Prefix of the names of statistics of the support set that normalise queries, [T, C] each."""

WAYS = "ways"
"""Name of the number of classes of each task, [T] int64."""

COUNTS = "counts"
"""Name of the number of examples of each class of each task, [T, W], where a state can be extended."""


def prefixed(prefix: str, tensors: Params) -> TaskState:
    """Put a prefix before the names of tensors.

    >>> import torch
    >>> sorted(prefixed("weights.", {"a": torch.zeros(1), "b": torch.zeros(1)}))
    ['weights.a', 'weights.b']
    """
    return {prefix + name: value for name, value in tensors.items()}


def section(state: TaskState, prefix: str) -> Params:
    """Take the entries whose names begin with a prefix, and remove the prefix; the reverse of `prefixed`."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

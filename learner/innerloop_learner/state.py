"""Names of the tensors in task states that several methods have in common."""

from innerloop_learner.tasks import Params, TaskState

WEIGHTS = "weights."
"""Prefix of the names of adapted weights, [T, ...] each."""

STATISTICS = "statistics."
"""Prefix of the names of statistics of the support set that normalise queries, [T, C] each."""

WAYS = "ways"
"""Name of the number of classes of each task, [T] int64."""


def prefixed(prefix: str, tensors: Params) -> TaskState:
    """The tensors with a prefix before their names.

    >>> import torch
    >>> sorted(prefixed("weights.", {"a": torch.zeros(1), "b": torch.zeros(1)}))
    ['weights.a', 'weights.b']
    """
    return {prefix + name: value for name, value in tensors.items()}


def section(state: TaskState, prefix: str) -> Params:
    """The entries whose names begin with a prefix, by the rest of their names; the reverse of `prefixed`."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

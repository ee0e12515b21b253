"""Names inside task states."""

from innerloop_learner.tasks import Params, TaskState

WEIGHTS = "weights."
"""Prefix of adapted weights."""

STATISTICS = "statistics."
"""Prefix of the support set's statistics that normalise queries."""

WAYS = "ways"
"""Classes of each task [T]."""


def prefixed(prefix: str, tensors: Params) -> TaskState:
    """Tensors under a prefix, as entries of a task state."""
    return {prefix + name: value for name, value in tensors.items()}


def section(state: TaskState, prefix: str) -> Params:
    """The entries below a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

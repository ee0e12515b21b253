"""Names inside task states."""

from innerloop_learner.tasks import Params, TaskState

WEIGHTS = "weights."
"""Prefix of adapted weights."""

STATISTICS = "statistics."
"""Prefix of the support set's statistics that normalise queries."""

WAYS = "ways"
"""Classes of each task [T]."""


def section(state: TaskState, prefix: str) -> Params:
    """The entries below a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

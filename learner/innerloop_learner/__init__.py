"""Task-batched few-shot learners: what the trainer and the server share.

Names are imported when they are first used, so that `innerloop_learner.manifest` can be read without PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from innerloop_learner import backbones, methods, update_rules
    from innerloop_learner.learner import Learner, build_learner
    from innerloop_learner.spec import InputSpec, LearnerSpec
    from innerloop_learner.tasks import Adapted, Episodes, Params, Query, Support, TaskState

__all__ = [
    "Adapted",
    "Episodes",
    "InputSpec",
    "Learner",
    "LearnerSpec",
    "Params",
    "Query",
    "Support",
    "TaskState",
    "backbones",
    "build_learner",
    "methods",
    "update_rules",
]

_MODULES = {
    "learner": ("Learner", "build_learner"),
    "spec": ("InputSpec", "LearnerSpec"),
    "tasks": ("Adapted", "Episodes", "Params", "Query", "Support", "TaskState"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

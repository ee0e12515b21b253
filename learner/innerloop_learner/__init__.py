"""Task-batched few-shot learners: what the trainer and the server share."""

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

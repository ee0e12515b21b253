"""Meta-training across tasks: an estimator says which way to change meta-parameters, an optimizer changes them.

Neither sees inside a learner: they know only an objective, which is a function of named parameters. `training_defaults`
holds the defaults of each method.
"""

from innerloop_trainer.outer_loop.estimators import Estimate, Estimator, build_estimator, estimators
from innerloop_trainer.outer_loop.loop import OuterLoop
from innerloop_trainer.outer_loop.optimizer import OptimizerPlan, Schedule
from innerloop_trainer.outer_loop.replay import Replayed, can_replay
from innerloop_trainer.outer_loop.training_defaults import (
    SERVING_WAYS,
    TrainingDefaults,
    defaults_of,
    training_defaults,
)

__all__ = [
    "SERVING_WAYS",
    "Estimate",
    "Estimator",
    "OptimizerPlan",
    "OuterLoop",
    "Replayed",
    "Schedule",
    "TrainingDefaults",
    "build_estimator",
    "can_replay",
    "defaults_of",
    "estimators",
    "training_defaults",
]

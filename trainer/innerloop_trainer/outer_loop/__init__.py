"""Meta-training across tasks: an estimator says which way to change meta-parameters, an optimizer changes them.

Neither sees what is inside a learner: all they know is an objective, a function of named parameters. What each method
is trained by unless the user says otherwise stands in `training_defaults`.
"""

from innerloop_trainer.outer_loop.estimators import Estimate, Estimator, build_estimator, estimators
from innerloop_trainer.outer_loop.loop import OuterLoop
from innerloop_trainer.outer_loop.optimizer import OptimizerPlan, Schedule
from innerloop_trainer.outer_loop.training_defaults import TrainingDefaults, defaults_of, training_defaults

__all__ = [
    "Estimate",
    "Estimator",
    "OptimizerPlan",
    "OuterLoop",
    "Schedule",
    "TrainingDefaults",
    "build_estimator",
    "defaults_of",
    "estimators",
    "training_defaults",
]

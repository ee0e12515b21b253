"""Estimators of the meta-gradient, registered by name."""

from innerloop_trainer.outer_loop.estimators import (
    backpropagation,
    darts,
    discriminant,
    es,
    implicit,
    mldg,
    nothing,
    pes,
    pilot,
    reinforce,
    reptile,
)
from innerloop_trainer.outer_loop.estimators.estimator import Estimate, Estimator, build_estimator, estimators

__all__ = [
    "Estimate",
    "Estimator",
    "backpropagation",
    "build_estimator",
    "darts",
    "discriminant",
    "es",
    "estimators",
    "implicit",
    "mldg",
    "nothing",
    "pes",
    "pilot",
    "reinforce",
    "reptile",
]

"""Outer losses: what meta-training minimises, apart from what serves.

A method names the objective that trains it (`MethodInfo.objective`); most are trained by the loss of their answers to
queries, `query_loss`. Nothing that serves imports this folder.
"""

from innerloop_learner.objectives import (
    all_classes,
    annealed_steps,
    contrastive,
    every_step,
    lifelong,
    query_loss,
    relation_scores,
    verification,
)
from innerloop_learner.objectives.objective import Objective, Outcome, Stage, build_objective, objectives

__all__ = [
    "Objective",
    "Outcome",
    "Stage",
    "all_classes",
    "annealed_steps",
    "build_objective",
    "contrastive",
    "every_step",
    "lifelong",
    "objectives",
    "query_loss",
    "relation_scores",
    "verification",
]

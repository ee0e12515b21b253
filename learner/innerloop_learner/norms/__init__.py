"""Normalisation whose statistics never come from queries.

Serving is inductive: what normalises a query belongs to the task state (support statistics) or to the bundle (averages
of meta-training), so that an answer never depends on other queries. Moments are written out here rather than taken from
`F.batch_norm`, whose double backward is wrong under `torch.func.vmap`, which knows no masks, and which on a CPU adds up
all positions one by one.

Every norm is `apply(params, x, weights, statistics) -> (y, statistics)`: given statistics are used, missing ones are
computed from x and returned, so that adapting computes them and predicting reuses them. `weights` [T, N] are what each
example counts in them: a mask, or weights that let every class of a support set count the same, which keeps a class
with many examples from deciding how all others are normalised.
"""

from innerloop_learner.norms import batch, group, none, position, task
from innerloop_learner.norms.group import LayerNorm
from innerloop_learner.norms.norm import EPSILON, Norm, Statistics, norms, shares_of
from innerloop_learner.norms.task import TaskBatchNorm

__all__ = [
    "EPSILON",
    "LayerNorm",
    "Norm",
    "Statistics",
    "TaskBatchNorm",
    "batch",
    "group",
    "none",
    "norms",
    "position",
    "shares_of",
    "task",
]

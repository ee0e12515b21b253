"""Methods, registered by name."""

from innerloop_learner.methods import (
    anil,
    baseline,
    boil,
    maml,
    maml_plus_plus,
    meta_sgd,
    nearest,
    protonet,
    reptile,
    scratch,
)

__all__ = [
    "anil",
    "baseline",
    "boil",
    "maml",
    "maml_plus_plus",
    "meta_sgd",
    "nearest",
    "protonet",
    "reptile",
    "scratch",
]

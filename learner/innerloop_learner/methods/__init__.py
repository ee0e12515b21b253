"""Methods, registered by name."""

from innerloop_learner.methods import (
    anil,
    baseline,
    boil,
    lr_d2,
    maml,
    maml_plus_plus,
    matching,
    meta_sgd,
    nearest,
    protonet,
    r2d2,
    relation,
    reptile,
    scratch,
    siamese,
)

__all__ = [
    "anil",
    "baseline",
    "boil",
    "lr_d2",
    "maml",
    "maml_plus_plus",
    "matching",
    "meta_sgd",
    "nearest",
    "protonet",
    "r2d2",
    "relation",
    "reptile",
    "scratch",
    "siamese",
]

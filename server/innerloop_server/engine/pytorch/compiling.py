"""Learners whose backbone is compiled."""

import copy
from typing import Any

import torch

from innerloop_learner.backbones.backbone import Features
from innerloop_learner.learner import Learner

MOST_SHAPES = 256


def compiled(learner: Learner, backend: str = "inductor") -> Learner:
    """A learner that answers as the given one does, whose backbone is compiled for every shape of inputs that it meets.

    Only `Backbone.apply` is compiled, through which all forward and backward passes go; the rest takes little time.
    """
    torch._dynamo.config.recompile_limit = MOST_SHAPES
    original = learner.backbone.apply

    def apply(*arguments: Any) -> tuple[Any, Any]:
        values, statistics = original(*arguments)
        return values, statistics

    fast = torch.compile(apply, dynamic=False, backend=backend)
    twin = copy.copy(learner)
    twin.backbone = copy.copy(learner.backbone)
    twin.backbone.apply = lambda *arguments: Features(*fast(*arguments))  # type: ignore[method-assign]
    return twin

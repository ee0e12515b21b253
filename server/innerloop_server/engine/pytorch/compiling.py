"""Learners whose backbone is compiled."""

import copy
from typing import Any

import torch

from innerloop_learner.backbones.backbone import Features
from innerloop_learner.learner import Learner

MOST_SHAPES = 256


def compiled(learner: Learner, backend: str = "inductor") -> Learner:
    """A learner that answers as the given one does, its backbone compiled anew for every shape of inputs that it meets.

    Whatever a learner does with a backbone, forward and backward go through `Backbone.apply`; the rest is small.
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

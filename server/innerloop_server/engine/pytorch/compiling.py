"""Learners whose backbone is compiled."""

import copy
from functools import cache
from typing import Any

import torch

from innerloop_learner.backbones.backbone import Backbone, Features
from innerloop_learner.learner import Learner

MOST_SHAPES = 256


def compiled(learner: Learner, backend: str = "inductor") -> Learner:
    """A learner that answers as the given one does, whose backbone is compiled for every shape of inputs that it meets.

    Only `Backbone.apply` is compiled, that of the backbone and that of the parts that it is divided into. All forward
    and backward passes go through it, and the rest takes little time.
    """
    torch._dynamo.config.recompile_limit = MOST_SHAPES
    twin = copy.copy(learner)
    twin.backbone = _compiled(learner.backbone, backend)
    return twin


def _compiled(backbone: Backbone, backend: str) -> Backbone:
    def apply(*arguments: Any) -> tuple[Any, Any]:
        values, statistics = backbone.apply(*arguments)
        return values, statistics

    @cache
    def divided(block: int) -> tuple[Backbone, Backbone] | None:
        parts = backbone.divided(block)
        return parts and (_compiled(parts[0], backend), _compiled(parts[1], backend))

    fast = torch.compile(apply, dynamic=False, backend=backend)
    twin = copy.copy(backbone)
    twin.apply = lambda *arguments: Features(*fast(*arguments))  # type: ignore[method-assign]
    twin.divided = divided  # type: ignore[method-assign] # parts that were copied would apply all blocks
    return twin

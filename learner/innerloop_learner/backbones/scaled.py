"""Features as they are, times one number."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from innerloop_learner.backbones.backbone import Backbone, Normalise, backbones
from innerloop_learner.settings import setting
from innerloop_learner.tasks import Params

LOG_SCALE = "scaled.log_scale"


@dataclass(frozen=True)
class ScaledSettings:
    """Settings of the backbone."""

    scale: float = setting(3.162, "factor of the features at first", least=1e-3, most=1e3)


@backbones.register("scaled")
class Scaled(Backbone):
    """A factor and nothing else.

    It is the backbone of models that are not trained, behind a frozen encoder.

        f(x) = e^s x

    It begins as `Adapter` does, at the root of 10: with features of length 1, squared distances are up to 40, enough
    for a sharp softmax.

    Inputs may have any shape.
    """

    settings_class = ScaledSettings

    def __init__(self, input_shape: tuple[int, ...], settings: Any) -> None:
        super().__init__(input_shape, settings)
        self.features = torch.Size(input_shape).numel()
        self.norms = []

    def init(self, generator: torch.Generator) -> Params:
        """See Backbone.init; nothing is random."""
        del generator
        return {LOG_SCALE: torch.full((1,), math.log(self.settings.scale))}

    def _layers(self, params: Params, x: Tensor, normalise: Normalise) -> Tensor:
        del normalise
        scale = params[LOG_SCALE].exp().unsqueeze(-2)  # [1, 1], or [T, 1, 1] where each task has its own
        return scale * x.flatten(2)

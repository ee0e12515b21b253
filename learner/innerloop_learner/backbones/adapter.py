"""A linear layer that adjusts features of a pre-trained encoder."""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.backbones.backbone import Backbone, Normalise, backbones
from innerloop_learner.layers import linear
from innerloop_learner.settings import setting
from innerloop_learner.tasks import Params

WEIGHT, BIAS, LOG_SCALE = "adapter.weight", "adapter.bias", "adapter.log_scale"


@dataclass(frozen=True)
class AdapterSettings:
    """Settings of the adapter."""

    normalise: bool = setting(False, "whether adjusted features are divided by their length")


@backbones.register("adapter")
class Adapter(Backbone):
    """A linear map that begins as the identity.

    It is the default behind a frozen encoder.

        f(x) = e^s (x + W x + b),   W and b zero at first

    Meta-learning therefore starts from the encoder's own features, and not from a random projection of them. At first
    e^s is the root of 10: squared distances between features of length 1 are then up to 40, enough for a sharp softmax.

    With the setting `normalise`, y = x + W x + b is divided by its length: f(x) = e^s y / |y|. Directions then count
    alone, and features whose mean b takes away are compared without it.

    Inputs may have any shape.
    """

    settings_class = AdapterSettings
    settings: AdapterSettings

    def __init__(self, input_shape: tuple[int, ...], settings: Any) -> None:
        super().__init__(input_shape, settings)
        self.features = torch.Size(input_shape).numel()
        self.norms = []

    def init(self, generator: torch.Generator) -> Params:
        """See Backbone.init; nothing is random."""
        del generator
        return {
            WEIGHT: torch.zeros(self.features, self.features),
            BIAS: torch.zeros(self.features),
            LOG_SCALE: torch.full((1,), math.log(10) / 2),
        }

    def _layers(self, params: Params, x: Tensor, normalise: Normalise) -> Tensor:
        del normalise
        x = x.flatten(2)
        scale = params[LOG_SCALE].exp().unsqueeze(-2)  # [1, 1], or [T, 1, 1] where each task has its own
        adjusted = x + linear(x, params[WEIGHT], params[BIAS])
        return scale * (F.normalize(adjusted, dim=-1) if self.settings.normalise else adjusted)

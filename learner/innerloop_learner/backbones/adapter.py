"""A linear layer that adjusts features of a pre-trained encoder."""

import math
from typing import Any

import torch
from torch import Tensor

from innerloop_learner.backbones.backbone import Backbone, Normalise, backbones
from innerloop_learner.layers import linear
from innerloop_learner.tasks import Params

WEIGHT, BIAS, LOG_SCALE = "adapter.weight", "adapter.bias", "adapter.log_scale"


@backbones.register("adapter")
class Adapter(Backbone):
    """A linear layer that leaves features as they are before training; the default behind a frozen encoder.

        f(x) = e^s (x + W x + b),   W and b zero at first

    Meta-learning therefore starts from the encoder's own features, and not from a random projection of them. At first
    e^s is the root of 10: squared distances between features of length 1 are then up to 40, enough for a sharp softmax.

    Inputs may have any shape.
    """

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
        return scale * (x + linear(x, params[WEIGHT], params[BIAS]))

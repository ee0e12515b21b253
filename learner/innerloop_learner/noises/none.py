"""No noise."""

import torch
from torch import Tensor

from innerloop_learner.noises.noise import Affine, Noise, noises
from innerloop_learner.tasks import Params


@noises.register("none")
class NoNoise(Noise):
    """No noise."""

    random = False

    def init(self, layers: Params, generator: torch.Generator) -> Params:
        """No parameters."""
        del layers, generator
        return {}

    def buffers(self) -> frozenset[str]:
        """None."""
        return frozenset()

    def mean(self, params: Params, layer: str, affine: Affine) -> Tensor:
        """See Noise.mean; nothing asks for it."""
        raise NotImplementedError

    def apply(self, params: Params, layer: str, y: Tensor, affine: Affine, keys: Tensor | None) -> Tensor:
        """See Noise.apply; y as it is."""
        del params, layer, affine, keys
        return y

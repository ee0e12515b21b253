"""Noise that nothing learns."""

import torch
from torch import Tensor

from innerloop_learner.noises.noise import TABLE, Affine, Noise, noises
from innerloop_learner.tasks import Params


@noises.register("fixed")
class FixedNoise(Noise):
    """Noise of one strength everywhere, as dropout has it.

        m = 0

    Meta-dropout begins like this; what it gains over this noise, it gains by learning.
    """

    def mean(self, params: Params, layer: str, affine: Affine) -> Tensor:
        """See Noise.mean."""
        del layer, affine
        return torch.zeros_like(params[TABLE][0])

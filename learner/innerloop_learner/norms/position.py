"""Normalisation of each position of an example by itself."""

import torch
from torch import Tensor

from innerloop_learner.norms.norm import EPSILON, Norm, Statistics, norms
from innerloop_learner.tasks import Params


@norms.register("position")
class PositionNorm(Norm):
    """Layer normalisation of each place of an example.

    It is the layer norm (Ba et al. 2016) of transformers, one token after the other, and for maps one pixel after the
    other.
    """

    def apply(self, params: Params, x: Tensor, weights: Tensor, statistics: Statistics) -> tuple[Tensor, Params]:
        """See Norm.apply; each place has its own moments, and no statistics are kept."""
        del weights, statistics
        variance, mean = torch.var_mean(x, dim=2, correction=0, keepdim=True)
        return self._affine(params, (x - mean) * (variance + EPSILON).rsqrt()), {}

"""Normalisation of each example by itself."""

import torch
from torch import Tensor

from innerloop_learner.norms.norm import EPSILON, Norm, Statistics, norms
from innerloop_learner.tasks import Params


@norms.register("group")
class GroupNorm(Norm):
    """Normalises groups of channels, each example by itself (Wu and He 2018).

    All groups are of one size: eight channels, or a few more where the channels are no multiple of eight (20 make two
    groups of 10).

    Raises:
        ValueError: the channels do not divide into such groups, as 25 do not.
    """

    group_size = 8

    def __init__(self, name: str, channels: int) -> None:
        super().__init__(name, channels)
        self._groups = max(1, channels // self.group_size)
        if channels % self._groups:
            raise ValueError(f"group norm needs a multiple of {self.group_size} channels, not {channels}")

    def apply(self, params: Params, x: Tensor, weights: Tensor, statistics: Statistics) -> tuple[Tensor, Params]:
        """See Norm.apply; each example has its own moments, and no statistics are kept."""
        del weights, statistics
        grouped = x.reshape(*x.shape[:2], self._groups, -1)
        variance, mean = torch.var_mean(grouped, dim=-1, correction=0, keepdim=True)
        return self._affine(params, ((grouped - mean) * (variance + EPSILON).rsqrt()).view(x.shape)), {}


@norms.register("layer")
class LayerNorm(GroupNorm):
    """Normalises all channels of an example together (Ba et al. 2016)."""

    def __init__(self, name: str, channels: int) -> None:
        self.group_size = channels
        super().__init__(name, channels)

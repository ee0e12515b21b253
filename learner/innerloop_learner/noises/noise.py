"""The interface of noises."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.draws import TABLE_LENGTH, normal_draws
from innerloop_learner.registry import Registry
from innerloop_learner.tasks import Params

NOISE = "noise."
"""Prefix of the names of a noise's parameters, which the inner loop leaves as they are."""

TABLE = f"{NOISE}table"
"""Name of the table of random numbers among the parameters."""

Affine = Callable[[Tensor, Tensor], Tensor]
"""The affine map of a layer: from a weight and a bias to outputs [T, N, ...] for the inputs at hand."""


class Noise(ABC):
    """Multiplies outputs y of a layer by factors that are drawn while a learner adapts, and known otherwise.

        y * Softplus(m + e),   e ~ N(0, 1) while adapting, e = 0 otherwise

    A subclass says what m is.

    Args:
        samples: samples of the noise over which an inner step averages the support loss where the loss is not
            differentiated twice, which means when serving; training takes one.
    """

    random: ClassVar[bool] = True
    """Whether it does anything."""

    def __init__(self, samples: int = 1) -> None:
        self.samples = samples

    def init(self, layers: Params, generator: torch.Generator) -> Params:
        """Fresh parameters for layers with the weights and biases `layers`: here, the table of random numbers."""
        del layers
        return {TABLE: torch.randn(TABLE_LENGTH, generator=generator)}

    def buffers(self) -> frozenset[str]:
        """Names of parameters that are not learned."""
        return frozenset({TABLE})

    @abstractmethod
    def mean(self, params: Params, layer: str, affine: Affine) -> Tensor:
        """The m of the outputs of a layer, of their shape or broadcast to it."""

    def apply(self, params: Params, layer: str, y: Tensor, affine: Affine, keys: Tensor | None) -> Tensor:
        """Multiply outputs by their factors.

        Args:
            params: parameters, the noise's own among them.
            layer: name of the layer, whose parameters are `LAYER.weight` and `LAYER.bias`.
            y: outputs [T, N, ...] of the layer.
            affine: the layer's affine map, for its inputs.
            keys: keys [T, N] of a sample, see `draws.keys_of_sample`; None for no randomness.
        """
        mean = self.mean(params, layer, affine)
        return y * F.softplus(mean if keys is None else mean + normal_draws(params[TABLE], keys, layer, y))


noises: Registry[type[Noise]] = Registry("noise", "innerloop.noises", "innerloop_learner.noises")

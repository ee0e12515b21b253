"""The interface of norms."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from innerloop_learner.registry import Registry
from innerloop_learner.tasks import Params

Statistics = Mapping[str, Tensor]
"""Means and variances by layer, [T, C] each."""

EPSILON = 1e-5
"""Added to variances, so that no root of zero is taken."""


class Norm(ABC):
    """One normalisation layer over the channels (third dimension) of [T, N, C, ...].

    Args:
        name: prefix of its parameters and statistics.
        channels: C.
    """

    support_statistics: ClassVar[bool] = False
    """Whether adapting must hand statistics of the support set to predicting."""

    def __init__(self, name: str, channels: int) -> None:
        self.name = name
        self.channels = channels

    def init(self) -> Params:
        """Fresh parameters: scale one and shift zero, [C] each."""
        return {f"{self.name}.weight": torch.ones(self.channels), f"{self.name}.bias": torch.zeros(self.channels)}

    def buffers(self) -> frozenset[str]:
        """Names of parameters that are averaged, not learned."""
        return frozenset()

    def learned(self, params: Params) -> tuple[Tensor, Tensor]:
        """Scale and shift, [C] or [T, C] each."""
        return params[f"{self.name}.weight"], params[f"{self.name}.bias"]

    @abstractmethod
    def apply(self, params: Params, x: Tensor, weights: Tensor, statistics: Statistics) -> tuple[Tensor, Params]:
        """Normalise x.

        Args:
            params: parameters, the norm's own among them.
            x: activations [T, N, C, ...].
            weights: how much each example counts in statistics, [T, N].
            statistics: statistics of the support set, which are used if given.

        Returns:
            x normalised, and the statistics that were computed (empty if given ones were used).
        """

    def refit(self, params: Params, x: Tensor, weights: Tensor) -> tuple[Tensor, Params]:
        """Normalise x [T, N, C, ...] with its own moments; returns it with new values of the buffers."""
        return self.apply(params, x, weights, {})[0], {}

    def as_affine(self, params: Params, statistics: Statistics) -> tuple[Tensor, Tensor] | None:
        """The factor and the summand [C] or [T, C] that `apply` multiplies by and adds; None if they depend on x.

        They can be folded into the layer before the norm. The default is right for every norm that depends on x.
        """
        del params, statistics
        return None

    def _affine(self, params: Params, y: Tensor) -> Tensor:
        scale, shift = self.learned(params)
        return y * self._aligned(scale, y) + self._aligned(shift, y)

    def _scaled(self, params: Params, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """Normalise by mean and variance, scale and shift: one multiplication and one addition per element."""
        scale, shift = self._combined(params, mean, variance)
        return torch.addcmul(self._aligned(shift, x), x, self._aligned(scale, x))

    def _combined(self, params: Params, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """The factor and the summand that normalise by mean and variance, scale and shift."""
        weight, bias = self.learned(params)
        scale = weight * (variance + EPSILON).rsqrt()
        return scale, bias - mean * scale

    def _aligned(self, values: Tensor, x: Tensor) -> Tensor:
        """View [C] or [T, C] so that it broadcasts over x [T, N, C, ...]."""
        tasks = values.shape[0] if values.dim() == 2 else 1
        return values.view(tasks, 1, self.channels, *(1,) * (x.dim() - 3))


norms: Registry[type[Norm]] = Registry("norm", "innerloop.norms", "innerloop_learner.norms")


def shares_of(weights: Tensor, dtype: torch.dtype) -> Tensor:
    """Weights [T, N] that sum to 1 in each task; all zero for a task without examples."""
    weights = weights.to(dtype)
    return weights / weights.sum(1, keepdim=True).clamp(min=torch.finfo(dtype).tiny)

"""The interface of feature extractors."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from innerloop_learner.norms import Norm, Statistics
from innerloop_learner.registry import Registry
from innerloop_learner.settings import NoSettings, refusing, with_settings
from innerloop_learner.tasks import Params


class Features(NamedTuple):
    """What a backbone returns.

    Attributes:
        values: [T, N, F].
        statistics: moments computed on the way, to hand back when embedding queries; or new buffers, when refitting.
    """

    values: Tensor
    statistics: Params


class Backbone(ABC):
    """Maps inputs [T, N, *input] to features [T, N, F] with weights that are shared or one per task.

    Args:
        input_shape: of one example.
        settings: of `settings_class`, checked.

    Attributes:
        norms: between its layers.
        features: F.

    Raises:
        ValueError: an input shape that it does not take.
    """

    settings_class: ClassVar[type[Any]] = NoSettings
    """A frozen dataclass of the backbone's settings, each declared by `settings.setting`."""

    norms: list[Norm]
    features: int

    def __init__(self, input_shape: tuple[int, ...], settings: Any) -> None:
        del input_shape
        self.settings = settings

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one example's features before they were flattened: maps (C, H, W), or (F,)."""
        return (self.features,)

    @abstractmethod
    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters."""

    @abstractmethod
    def _layers(self, params: Params, x: Tensor, normalise: "Normalise") -> Tensor:
        """Apply all layers to x [T, N, *input], calling `normalise` where a norm belongs."""

    def buffers(self) -> frozenset[str]:
        """Names of parameters that are averaged, not learned."""
        return frozenset[str]().union(*(norm.buffers() for norm in self.norms))

    @property
    def support_statistics(self) -> bool:
        """Whether embedding queries needs statistics of the support set."""
        return any(norm.support_statistics for norm in self.norms)

    @property
    def once(self) -> "Backbone":
        """The same backbone for where its gradients are never differentiated again, which may be faster.

        The statistics that it returns may have no gradients.
        """
        return self

    def apply(self, params: Params, x: Tensor, weights: Tensor, statistics: Statistics | None = None) -> Features:
        """Embed x [T, N, *input]; statistics given are used, others are computed from x and returned.

        `weights` [T, N] are what each example counts in statistics: a mask, or `Learner.example_weights`.
        """
        given = statistics or {}
        normalise = Normalise(
            lambda norm, y: norm.apply(params, y, weights, given), lambda norm: norm.as_affine(params, given)
        )
        return Features(self._layers(params, x, normalise), normalise.statistics)

    def refit(self, params: Params, x: Tensor, weights: Tensor) -> Params:
        """Values of the buffers that fit x [T, N, *input], all tasks together; arguments as in `apply`."""
        normalise = Normalise(lambda norm, y: norm.refit(params, y, weights))
        self._layers(params, x, normalise)
        return normalise.statistics


class Normalise:
    """Applies norms and gathers the statistics they compute.

    Args:
        apply: normalises, and returns statistics.
        affine: what a norm multiplies by and adds, where that may be known beforehand.
    """

    def __init__(
        self,
        apply: Callable[[Norm, Tensor], tuple[Tensor, Params]],
        affine: Callable[[Norm], tuple[Tensor, Tensor] | None] | None = None,
    ) -> None:
        self._apply = apply
        self._affine = affine
        self.statistics: Params = {}

    def as_affine(self, norm: Norm) -> tuple[Tensor, Tensor] | None:
        """What a norm multiplies by and adds, [C] or [T, C] each, if that is known beforehand."""
        return None if self._affine is None else self._affine(norm)

    def __call__(self, norm: Norm, x: Tensor) -> Tensor:
        """Normalise x [T, N, C, ...]."""
        y, statistics = self._apply(norm, x)
        self.statistics.update(statistics)
        return y


backbones: Registry[type[Backbone]] = Registry("backbone", "innerloop.backbones")


def build_backbone(name: str, input_shape: tuple[int, ...], settings: Mapping[str, Any]) -> Backbone:
    """The backbone of that name.

    Raises:
        UnknownNameError: no such backbone.
        SettingsError: settings or an input shape that it does not take.
    """
    kind, owner = backbones[name], f"backbone {name}"
    with refusing(owner):
        return kind(input_shape, with_settings(owner, kind.settings_class, settings))

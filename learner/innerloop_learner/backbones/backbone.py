"""The interface of feature extractors."""

import copy
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from innerloop_learner.noises import Noise, noises
from innerloop_learner.norms import Norm, Statistics
from innerloop_learner.registry import Registry
from innerloop_learner.settings import NoSettings, refusing, with_settings
from innerloop_learner.tasks import Params


class Features(NamedTuple):
    """The result of a backbone.

    Attributes:
        values: features [T, N, F].
        statistics: means and variances that the norms computed, to be given back when queries are embedded; from
            `refitted`, new values of the buffers.
    """

    values: Tensor
    statistics: Params


class Disturbance(NamedTuple):
    """What chooses how training disturbs features, besides the values of an example.

    Attributes:
        seed: a whole number [1], other ones in every outer step.
        progress: share of the outer steps taken so far, 0 to 1, [1] float64.
    """

    seed: Tensor
    progress: Tensor


class Backbone(ABC):
    """Maps inputs [T, N, *input] to features [T, N, F] with weights that are shared or one per task.

    Args:
        input_shape: shape of one example.
        settings: an instance of `settings_class`, checked already.

    Attributes:
        norms: the norms between its layers.
        noise: the noise on the outputs of its layers; backbones without a setting for it have none.
        features: number of features F of an example.
        depth: number of blocks, one after the other, between which it can be divided; zero where it can't be.
        low_precision: whether convolutions and products are computed in bfloat16; features and statistics stay float32.

    Raises:
        ValueError: the backbone does not take inputs of this shape.
    """

    settings_class: ClassVar[type[Any]] = NoSettings
    """A frozen dataclass of the backbone's settings, each declared by `settings.setting`."""

    norms: list[Norm]
    noise: Noise = noises["none"]()
    features: int
    depth: int = 0
    low_precision: bool = False
    _span: range | None = None

    def __init__(self, input_shape: tuple[int, ...], settings: Any) -> None:
        del input_shape
        self.settings = settings

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one example's features before they are flattened: (C, H, W) for feature maps, otherwise (F,)."""
        return (self.features,)

    @abstractmethod
    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters."""

    @abstractmethod
    def _layers(self, params: Params, x: Tensor, normalise: "Normalise") -> Tensor:
        """Apply all layers to x [T, N, *input], calling `normalise` where a norm belongs.

        A backbone that has a `depth` applies the blocks of `span` only, what comes before the first one if that is
        among them (`begins`), and what comes behind the last one likewise (`ends`).
        """

    def buffers(self) -> frozenset[str]:
        """Names of parameters that are averaged, not learned."""
        return self.noise.buffers().union(*(norm.buffers() for norm in self.norms))

    def architecture(self) -> frozenset[str]:
        """Names of learned parameters that say what the network is; inner loops leave them as they are."""
        return frozenset()

    def disturbed(self, params: Params, chosen: Callable[[], Disturbance]) -> Params:
        """The parameters by which training asks queries, if it is to disturb features in some way.

        Adapting never gets them, nor does serving, so that both see features as they are. By default features stay as
        they are in training, too.

        Args:
            params: parameters of the backbone, and of what stands behind it.
            chosen: gives what chooses the disturbance, on the device of the parameters.
        """
        del chosen
        return params

    @property
    def support_statistics(self) -> bool:
        """Whether embedding queries needs statistics of the support set."""
        return any(norm.support_statistics for norm in self.norms)

    @property
    def once(self) -> "Backbone":
        """A version of this backbone, possibly faster, for use where its gradients are not differentiated again.

        Gradients may not flow through the statistics that it returns.
        """
        return self

    def divided(self, block: int) -> "tuple[Backbone, Backbone] | None":
        """The blocks below number `block` and the others, each as a backbone with the same parameters.

        The `values` of the lower one, without a shape that is promised, are the inputs of the upper one. None where a
        backbone can't be divided so.
        """
        if not 0 < block < self.depth:
            return None
        lower, upper = copy.copy(self), copy.copy(self)
        lower._span, upper._span = range(block), range(block, self.depth)
        return lower, upper

    @property
    def span(self) -> range:
        """Numbers of the blocks that it applies: all, but where it is a part of a divided one."""
        return range(self.depth) if self._span is None else self._span

    @property
    def begins(self) -> bool:
        """Whether it takes the inputs of the whole backbone."""
        return self.span.start == 0

    @property
    def ends(self) -> bool:
        """Whether it gives the features of the whole backbone."""
        return self.span.stop == self.depth

    def blocks_below(self, names: Iterable[str]) -> int:
        """Number of blocks, from the first on, whose outputs depend on none of the parameters of these names."""
        return min((self._block_of(name) for name in names), default=self.depth) if self.depth else 0

    def _block_of(self, name: str) -> int:
        """Number of the block that a parameter belongs to; the first one where its layer has no number."""
        return block_number(name) or 0

    def apply(
        self,
        params: Params,
        x: Tensor,
        weights: Tensor,
        statistics: Statistics | None = None,
        noise_keys: Tensor | None = None,
    ) -> Features:
        """Embed x [T, N, *input]. Norms use the `statistics` given; missing ones are computed from x and returned.

        `weights` [T, N] say how much each example counts in statistics: a mask, or `Learner.example_weights`. With
        `noise_keys` [T, N] the noise is random, and these choose it (`noises.keys_of_sample`).
        """
        given = statistics or {}
        normalise = Normalise(
            lambda norm, y: norm.apply(params, y, weights, given),
            lambda norm: norm.as_affine(params, given),
            noise_keys,
        )
        return self._computed(params, x, normalise)

    def refitted(self, params: Params, x: Tensor, weights: Tensor) -> Features:
        """Embed x [T, N, *input] by the values of the buffers that fit all tasks of x together.

        The arguments are those of `apply`; these values are the statistics that come back.
        """
        normalise = Normalise(lambda norm, y: norm.refit(params, y, weights))
        return self._computed(params, x, normalise)

    def refit(self, params: Params, x: Tensor, weights: Tensor) -> Params:
        """The values of the buffers that fit all tasks of x [T, N, *input] together; empty if no norm has buffers."""
        if not any(norm.buffers() for norm in self.norms):
            return {}
        return self.refitted(params, x, weights).statistics

    def _computed(self, params: Params, x: Tensor, normalise: "Normalise") -> Features:
        """The result of the layers, in the precision that the backbone has."""
        if not self.low_precision:
            return Features(self._layers(params, x, normalise), normalise.statistics)
        with torch.autocast(x.device.type, torch.bfloat16):
            values = self._layers(params, x, normalise)
        return Features(values.float(), {name: value.float() for name, value in normalise.statistics.items()})


def block_number(name: str) -> int | None:
    """The number at the end of a parameter's layer; None if there is none.

    >>> [block_number(name) for name in ("block1.conv0.weight", "norm0.bias", "positions")]
    [1, 0, None]
    """
    number = re.search(r"\d+$", name.partition(".")[0])
    return int(number[0]) if number else None


def check_images(backbone: str, input_shape: tuple[int, ...]) -> None:
    """Check that inputs are images.

    Raises:
        ValueError: they are not; the message names the backbone.
    """
    if len(input_shape) != 3:
        raise ValueError(f"{backbone} takes images (channels, height, width), not inputs of shape {input_shape}")


class Normalise:
    """Applies norms and gathers the statistics they compute.

    Args:
        apply: function that normalises activations with a norm, and returns the norm's statistics.
        affine: function that gives the factor and the summand of a norm, or None where they depend on activations.
        noise_keys: see `Backbone.apply`.
    """

    def __init__(
        self,
        apply: Callable[[Norm, Tensor], tuple[Tensor, Params]],
        affine: Callable[[Norm], tuple[Tensor, Tensor] | None] | None = None,
        noise_keys: Tensor | None = None,
    ) -> None:
        self.noise_keys = noise_keys
        self._apply = apply
        self._affine = affine
        self.statistics: Params = {}

    def as_affine(self, norm: Norm) -> tuple[Tensor, Tensor] | None:
        """The factor and the summand of a norm, [C] or [T, C] each; None where they depend on the activations."""
        return None if self._affine is None else self._affine(norm)

    def __call__(self, norm: Norm, x: Tensor) -> Tensor:
        """Normalise x [T, N, C, ...]."""
        y, statistics = self._apply(norm, x)
        self.statistics.update(statistics)
        return y


backbones: Registry[type[Backbone]] = Registry("backbone", "innerloop.backbones")


def build_backbone(name: str, input_shape: tuple[int, ...], settings: Mapping[str, Any]) -> Backbone:
    """Build the backbone that is registered under a name.

    Raises:
        UnknownNameError: no backbone has this name.
        SettingsError: the backbone does not take these settings or this input shape.
    """
    kind, owner = backbones[name], f"backbone {name}"
    with refusing(owner):
        return kind(input_shape, with_settings(owner, kind.settings_class, settings))

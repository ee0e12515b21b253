"""The interface of augmentations."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from innerloop_learner.registry import Registry
from innerloop_learner.settings import with_settings
from innerloop_learner.tasks import Params

Strength = Tensor | float
"""A number, or a scalar tensor where strengths are learned."""

Strengths = Mapping[str, Strength]
"""Strengths of an augmentation by name."""


class Augmentation(ABC):
    """Changes images at random, each by itself.

    Images are normalised as learners take them. With all strengths at zero, every image stays as it is.

    Args:
        strengths: strengths by name, one for each field of `strengths_class`.
    """

    strengths_class: ClassVar[type[Any]]
    """A frozen dataclass of the usual strengths, each declared by `settings.setting`."""

    def __init__(self, strengths: Strengths) -> None:
        self.strengths = strengths

    @abstractmethod
    def draw(self, images: int, generator: torch.Generator) -> Params:
        """Random numbers for so many images N, on the generator's device: tensors [N, ...] that no strength changes."""

    @abstractmethod
    def apply(self, x: Tensor, noise: Params) -> Tensor:
        """Change images x [N, C, H, W] as `noise`, which `draw` gave for them, and the strengths say."""


augmentations: Registry[type[Augmentation]] = Registry(
    "augmentation", "innerloop.augmentations", "innerloop_learner.augmentations"
)


def build_augmentation(name: str, strengths: Mapping[str, float]) -> Augmentation:
    """Build the augmentation that is registered under a name; strengths that are not given are the usual ones.

    Raises:
        UnknownNameError: no augmentation has this name.
        SettingsError: it does not take these strengths.
    """
    kind = augmentations[name]
    return kind(vars(with_settings(f"augmentation {name}", kind.strengths_class, strengths)))


def uniform(generator: torch.Generator, *shape: int) -> Tensor:
    """Random numbers between -1 and 1, on the generator's device."""
    return 2 * torch.rand(shape, generator=generator, device=generator.device) - 1

"""The interface of augmentations."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from innerloop_learner.augmentations.random_numbers import RandomNumbers
from innerloop_learner.registry import Registry
from innerloop_learner.settings import with_settings
from innerloop_learner.tasks import Params

Strength = Tensor | float
"""A number, or a scalar tensor where strengths are learned."""

Strengths = Mapping[str, Strength]
"""Strengths of an augmentation by name."""


TEMPERATURE = 0.2
"""Temperature of the smooth numbers that stand for whether something happens. At a probability of 0.5, three of four
such numbers lie below 0.05 or above 0.95."""


EDGE = 1e-6
"""Smallest probability, and smallest rest, that a relaxation takes; further out, its gradient would not be finite."""


class Augmentation(ABC):
    """Changes images at random, each by itself.

    Images are normalised as learners take them. With all strengths at zero, every image stays as it is.

    Args:
        strengths: strengths by name, one for each field of `strengths_class`.
    """

    strengths_class: ClassVar[type[Any]]
    """A frozen dataclass of the usual strengths, each declared by `settings.setting`."""

    never_learned: ClassVar[frozenset[str]] = frozenset()
    """Names of strengths in which the change is not differentiable."""

    def __init__(self, strengths: Strengths) -> None:
        self.strengths = strengths

    @abstractmethod
    def draw(self, numbers: RandomNumbers) -> Params:
        """Random numbers for N images: tensors [N, ...] that no strength changes."""

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


def occurrence(chance: Tensor, probability: Strength) -> Tensor:
    """How far something happens to each image [N] that happens with a probability: 1 fully, 0 not at all.

    Where the probability p is a number, it happens if the chance u is smaller. A probability that is learned takes the
    relaxation of that (Maddison, Mnih and Teh 2017, equation 23), in which numbers between 0 and 1 occur, too:

        sigmoid((logit(p) - logit(u)) / TEMPERATURE)

    Args:
        chance: uniform numbers between 0 and 1 [N].
        probability: the probability.
    """
    if isinstance(probability, Tensor):
        return ((probability.logit(EDGE) - chance.logit()) / TEMPERATURE).sigmoid()
    return (chance < probability).to(chance.dtype)

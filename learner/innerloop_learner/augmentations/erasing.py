"""Random erasing."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from innerloop_learner.augmentations.augmentation import Augmentation, augmentations, occurrence
from innerloop_learner.augmentations.random_numbers import RandomNumbers
from innerloop_learner.augmentations.warp import centres
from innerloop_learner.settings import setting
from innerloop_learner.tasks import Params

LARGEST_STRETCH = math.log(3)
"""Largest change of the logarithm of a rectangle's width by its height."""


@dataclass(frozen=True)
class ErasingStrengths:
    """Strengths of `Erasing`."""

    probability: float = setting(0.5, "share of the images that lose a rectangle", least=0, most=1)
    area: float = setting(0.2, "largest part of the area that is lost", least=0, most=1)


@augmentations.register("erasing")
class Erasing(Augmentation):
    """Erases a rectangle of some images, at a random place (Zhong et al. 2020).

    What is erased becomes 0. A pixel loses the part of it that the rectangle covers, so that images change smoothly
    with the area: y = x (1 - c), with c the share of the pixel that is covered.
    """

    strengths_class = ErasingStrengths

    def draw(self, numbers: RandomNumbers) -> Params:
        """See Augmentation.draw: chance and area 0 to 1 and stretch -1 to 1, [N]; place -1 to 1, [N, 2]."""
        return {
            "chance": numbers.unit("chance"),
            "area": numbers.unit("area"),
            "stretch": numbers.signed("stretch"),
            "place": numbers.signed("place", 2),
        }

    def apply(self, x: Tensor, noise: Params) -> Tensor:
        """See Augmentation.apply."""
        side = (noise["area"] * self.strengths["area"]).sqrt()
        ratio = (noise["stretch"] * LARGEST_STRETCH / 2).exp()
        sides = torch.stack([side * ratio, side / ratio], -1).clamp(max=1)
        middle = noise["place"] * (1 - sides)
        across, down = (_covered(middle[:, index], sides[:, index], x, -1 - index) for index in (0, 1))
        happens = occurrence(noise["chance"], self.strengths["probability"])[:, None, None]
        lost = happens * down.unsqueeze(2) * across.unsqueeze(1)
        return x * (1 - lost.unsqueeze(1))


def _covered(middle: Tensor, half: Tensor, x: Tensor, axis: int) -> Tensor:
    """The share of each column (axis -1) or row (axis -2) of images x [N, C, H, W] that rectangles cover, [N, W or H].

    The middle of a rectangle [N] and half its side [N] are in units in which the image lies between -1 and 1.
    """
    middles, radius = centres(x, axis), 1 / x.shape[axis]
    first = torch.maximum(middles - radius, (middle - half).unsqueeze(1))
    last = torch.minimum(middles + radius, (middle + half).unsqueeze(1))
    return (last - first).clamp(min=0) / (2 * radius)

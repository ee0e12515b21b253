"""Random erasing."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from innerloop_learner.augmentations.augmentation import Augmentation, augmentations, uniform
from innerloop_learner.augmentations.warp import pixels
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

    What is erased becomes 0.
    """

    strengths_class = ErasingStrengths

    def draw(self, images: int, generator: torch.Generator) -> Params:
        """See Augmentation.draw: chance and area 0 to 1 and stretch -1 to 1, [N]; place -1 to 1, [N, 2]."""
        chance, area = torch.rand(2, images, generator=generator, device=generator.device)
        stretch, place = uniform(generator, images), uniform(generator, images, 2)
        return {"chance": chance, "area": area, "stretch": stretch, "place": place}

    def apply(self, x: Tensor, noise: Params) -> Tensor:
        """See Augmentation.apply."""
        side = (noise["area"] * self.strengths["area"]).sqrt()
        ratio = (noise["stretch"] * LARGEST_STRETCH / 2).exp()
        sides = torch.stack([side * ratio, side / ratio], -1).clamp(max=1)[:, None, None]
        inside = ((pixels(x) - noise["place"][:, None, None] * (1 - sides)).abs() < sides).all(-1)
        erased = inside & (noise["chance"] < self.strengths["probability"])[:, None, None]
        return x.masked_fill(erased.unsqueeze(1), 0.0)

"""Random crops, enlarged."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from innerloop_learner.augmentations.augmentation import augmentations
from innerloop_learner.augmentations.random_numbers import RandomNumbers
from innerloop_learner.augmentations.warp import Warp
from innerloop_learner.settings import setting
from innerloop_learner.tasks import Params


@dataclass(frozen=True)
class CropStrengths:
    """Strengths of `Crop`."""

    removed: float = setting(0.8, "largest part of the area that is cut away", least=0, most=0.99)
    stretch: float = setting(math.log(4 / 3), "largest change of the logarithm of width by height", least=0, most=1)


@augmentations.register("crop")
class Crop(Warp):
    """Enlarges a part at a random place to the image's size (Szegedy et al. 2015).

    The part that stays is uniform between 1 - `removed` and 1 of the area.
    """

    strengths_class = CropStrengths

    def draw(self, numbers: RandomNumbers) -> Params:
        """See Augmentation.draw: area 0 to 1 and stretch -1 to 1, [N]; place -1 to 1, [N, 2]."""
        return {
            "area": numbers.unit("area"),
            "stretch": numbers.signed("stretch"),
            "place": numbers.signed("place", 2),
        }

    def move(self, points: Tensor, noise: Params) -> Tensor:
        """See Warp.move."""
        side = (1 - noise["area"] * self.strengths["removed"]).sqrt()
        ratio = (noise["stretch"] * self.strengths["stretch"] / 2).exp()
        sides = torch.stack([side * ratio, side / ratio], -1).clamp(max=1)
        return points * sides[:, None, None] + (noise["place"] * (1 - sides))[:, None, None]

"""Mirror images."""

from dataclasses import dataclass

import torch
from torch import Tensor

from innerloop_learner.augmentations.augmentation import augmentations
from innerloop_learner.augmentations.random_numbers import RandomNumbers
from innerloop_learner.augmentations.warp import Warp
from innerloop_learner.settings import setting
from innerloop_learner.tasks import Params


@dataclass(frozen=True)
class FlipStrengths:
    """Strengths of `Flip`."""

    probability: float = setting(0.5, "share of the images that are mirrored", least=0, most=1)


@augmentations.register("flip")
class Flip(Warp):
    """Mirrors some images, left to right.

    It suits photographs; mirrored characters are others.
    """

    strengths_class = FlipStrengths
    never_learned = frozenset({"probability"})  # half a mirror image is none

    def draw(self, numbers: RandomNumbers) -> Params:
        """See Augmentation.draw: a number between 0 and 1 for each image, [N]."""
        return {"chance": numbers.unit("chance")}

    def move(self, points: Tensor, noise: Params) -> Tensor:
        """See Warp.move."""
        across, down = points.unbind(-1)
        mirrored = (noise["chance"] < self.strengths["probability"])[:, None, None]
        return torch.stack([torch.where(mirrored, -across, across), down], -1)

"""Elastic distortion."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.augmentations.augmentation import augmentations
from innerloop_learner.augmentations.random_numbers import RandomNumbers
from innerloop_learner.augmentations.warp import Warp
from innerloop_learner.settings import setting
from innerloop_learner.tasks import Params

COARSE = 4
"""Height and width of the grid of displacements that are drawn; those between are interpolated."""


@dataclass(frozen=True)
class ElasticStrengths:
    """Strengths of `Elastic`."""

    distance: float = setting(0.03, "standard deviation of displacements, in parts of an image's size", least=0, most=1)


@augmentations.register("elastic")
class Elastic(Warp):
    """Bends images smoothly (Simard, Steinkraus and Platt 2003).

    The changes are those of a hand that draws the same thing again.

    Displacements are normal on a coarse grid and smooth between its points.
    """

    strengths_class = ElasticStrengths

    def draw(self, numbers: RandomNumbers) -> Params:
        """See Augmentation.draw: displacements in standard deviations, [N, 2, 4, 4]."""
        return {"field": numbers.normal("field", 2, COARSE, COARSE)}

    def move(self, points: Tensor, noise: Params) -> Tensor:
        """See Warp.move."""
        field = F.interpolate(noise["field"], points.shape[1:3], mode="bicubic", align_corners=True)
        return points + 2 * self.strengths["distance"] * field.permute(0, 2, 3, 1)

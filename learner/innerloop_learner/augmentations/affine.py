"""Rotation, scaling and shear."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from innerloop_learner.augmentations.augmentation import augmentations
from innerloop_learner.augmentations.random_numbers import RandomNumbers
from innerloop_learner.augmentations.warp import Warp
from innerloop_learner.settings import setting
from innerloop_learner.tasks import Params

_AMOUNTS = ("rotation", "scale", "shear")


@dataclass(frozen=True)
class AffineStrengths:
    """Strengths of `Affine`."""

    rotation: float = setting(15.0, "largest rotation to either side, in degrees", least=0, most=180)
    scale: float = setting(0.2, "largest change of the logarithm of the size", least=0, most=1)
    shear: float = setting(0.3, "largest shift of a row, as a share of its distance from the centre", least=0, most=1)


@augmentations.register("affine")
class Affine(Warp):
    """Rotates, scales and shears about the centre.

    Amounts are uniform between the largest ones:

    p -> exp(s) R(a) [[1, h], [0, 1]] p, in pixels, so that circles stay circles where only rotated.
    """

    strengths_class = AffineStrengths

    def draw(self, numbers: RandomNumbers) -> Params:
        """See Augmentation.draw: amounts between -1 and 1, [N] each."""
        return {name: numbers.signed(name) for name in _AMOUNTS}

    def move(self, points: Tensor, noise: Params) -> Tensor:
        """See Warp.move."""
        angle, scale, shear = ((noise[name] * self.strengths[name])[:, None, None] for name in _AMOUNTS)
        angle, size = angle * (math.pi / 180), scale.exp()
        cos, sin = size * angle.cos(), size * angle.sin()
        height, width = points.shape[1:3]
        across, down = points[..., 0] * width, points[..., 1] * height
        # Written out, since a matrix product would be rounded to few digits where the server computes in bfloat16.
        moved = cos * across + (shear * cos - sin) * down, sin * across + (shear * sin + cos) * down
        return torch.stack([moved[0] / width, moved[1] / height], -1)

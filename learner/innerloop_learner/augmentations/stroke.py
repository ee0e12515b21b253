"""Width of strokes."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.augmentations.augmentation import Augmentation, augmentations
from innerloop_learner.augmentations.random_numbers import RandomNumbers
from innerloop_learner.settings import setting
from innerloop_learner.tasks import Params

REACH = 3
"""Height and width in pixels of the neighbourhood whose darkest or lightest pixel is taken."""


@dataclass(frozen=True)
class StrokeStrengths:
    """Strengths of `Stroke`."""

    width: float = setting(0.5, "largest change; 1 widens or narrows strokes by a pixel on each side", least=0, most=1)


@augmentations.register("stroke")
class Stroke(Augmentation):
    """Makes strokes of drawings wider or narrower.

    Ink may be lighter than paper or darker.

    y = x + max(a, 0) (dilated(x) - x) + max(-a, 0) (eroded(x) - x), with a uniform between the largest changes.
    """

    strengths_class = StrokeStrengths

    def draw(self, numbers: RandomNumbers) -> Params:
        """See Augmentation.draw: changes between -1 and 1, [N]."""
        return {"change": numbers.signed("change")}

    def apply(self, x: Tensor, noise: Params) -> Tensor:
        """See Augmentation.apply."""
        change = (noise["change"] * self.strengths["width"])[:, None, None, None]
        wider, narrower = (_largest_nearby(sign * x) * sign for sign in (1, -1))
        return x + change.clamp(min=0) * (wider - x) + (-change).clamp(min=0) * (narrower - x)


def _largest_nearby(x: Tensor) -> Tensor:
    """The largest of the pixels around each pixel of x [N, C, H, W]."""
    return F.max_pool2d(x, REACH, stride=1, padding=REACH // 2)

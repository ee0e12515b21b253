"""Shift."""

from dataclasses import dataclass

from torch import Tensor

from innerloop_learner.augmentations.augmentation import augmentations
from innerloop_learner.augmentations.random_numbers import RandomNumbers
from innerloop_learner.augmentations.warp import Warp
from innerloop_learner.settings import setting
from innerloop_learner.tasks import Params


@dataclass(frozen=True)
class ShiftStrengths:
    """Strengths of `Shift`."""

    distance: float = setting(0.1, "largest shift in each direction, in parts of the image's size", least=0, most=1)


@augmentations.register("shift")
class Shift(Warp):
    """Shifts images.

    Distances are uniform between the largest ones.
    """

    strengths_class = ShiftStrengths

    def draw(self, numbers: RandomNumbers) -> Params:
        """See Augmentation.draw: distances between -1 and 1, [N, 2]."""
        return {"shift": numbers.signed("shift", 2)}

    def move(self, points: Tensor, noise: Params) -> Tensor:
        """See Warp.move."""
        return points + 2 * self.strengths["distance"] * noise["shift"][:, None, None]

"""Brightness, contrast and saturation."""

from dataclasses import dataclass

from torch import Tensor

from innerloop_learner.augmentations.augmentation import Augmentation, augmentations, occurrence
from innerloop_learner.augmentations.random_numbers import RandomNumbers
from innerloop_learner.settings import setting
from innerloop_learner.tasks import Params


@dataclass(frozen=True)
class ColourStrengths:
    """Strengths of `Colour`."""

    brightness: float = setting(0.4, "largest summand of all colours, as normalised", least=0)
    contrast: float = setting(0.4, "largest change of the logarithm of the contrast", least=0, most=3)
    saturation: float = setting(0.4, "largest change of the logarithm of the saturation", least=0, most=3)
    gray: float = setting(0.2, "share of the images that lose all colour", least=0, most=1)


@augmentations.register("colour")
class Colour(Augmentation):
    """Changes brightness, contrast and saturation, or makes gray (after Chen et al. 2020, appendix A).

    The colours that photographs share are what self-supervision would learn first without it. Hues stay as they are.
    """

    strengths_class = ColourStrengths

    def draw(self, numbers: RandomNumbers) -> Params:
        """See Augmentation.draw: changes between -1 and 1 and chance 0 to 1, [N] each."""
        changes = {name: numbers.signed(name) for name in ("brightness", "contrast", "saturation")}
        return {**changes, "chance": numbers.unit("chance")}

    def apply(self, x: Tensor, noise: Params) -> Tensor:
        """See Augmentation.apply."""
        brightness, contrast, saturation = (
            (noise[name] * self.strengths[name])[:, None, None, None]
            for name in ("brightness", "contrast", "saturation")
        )
        kept = 1 - occurrence(noise["chance"], self.strengths["gray"])[:, None, None, None]
        gray = x.mean(1, keepdim=True)
        x = gray + (x - gray) * saturation.exp() * kept
        mean = x.mean((1, 2, 3), keepdim=True)
        return mean + (x - mean) * contrast.exp() + brightness

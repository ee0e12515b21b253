"""Random changes of images that leave what they show the same, registered by name.

An augmentation draws random numbers for a batch of images and then changes these, so that the change itself is a pure
function, differentiable in its strengths where that makes sense. `Augment` applies several, one after the other, to all
images of a batch at once, on the device that they are on.
"""

from innerloop_learner.augmentations import affine, colour, crop, elastic, erasing, flip, shift, stroke
from innerloop_learner.augmentations.augment import Augment
from innerloop_learner.augmentations.augmentation import (
    Augmentation,
    Strength,
    Strengths,
    augmentations,
    build_augmentation,
)
from innerloop_learner.augmentations.named import NONE, named_augmentations, text_of
from innerloop_learner.augmentations.random_numbers import GeneratedNumbers, RandomNumbers
from innerloop_learner.augmentations.warp import Warp

__all__ = [
    "NONE",
    "Augment",
    "Augmentation",
    "GeneratedNumbers",
    "RandomNumbers",
    "Strength",
    "Strengths",
    "Warp",
    "affine",
    "augmentations",
    "build_augmentation",
    "colour",
    "crop",
    "elastic",
    "erasing",
    "flip",
    "named_augmentations",
    "shift",
    "stroke",
    "text_of",
]

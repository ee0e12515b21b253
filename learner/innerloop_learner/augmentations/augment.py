"""Applies several augmentations one after the other."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from innerloop_learner.augmentations.augmentation import Augmentation
from innerloop_learner.augmentations.random_numbers import GeneratedNumbers, KeyedNumbers, RandomNumbers
from innerloop_learner.augmentations.warp import Warp, pixels, sample
from innerloop_learner.tasks import Params


class Augment:
    """A sequence of augmentations.

    Args:
        parts: the augmentations in the order in which they are applied; warps that follow each other are one.

    Example:
        >>> from innerloop_learner.augmentations import build_augmentation
        >>> augment = Augment([build_augmentation("affine", {"rotation": 30.0}), build_augmentation("stroke", {})])
        >>> images = torch.rand(2, 5, 1, 28, 28)  # two tasks of five images
        >>> augment(images, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 5, 1, 28, 28])
    """

    def __init__(self, parts: Sequence[Augmentation]) -> None:
        self._parts = parts

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Change images x [..., C, H, W], each by itself; equal generators change them equally.

        Args:
            x: images, normalised.
            generator: generator on the device of the images.
        """
        images = x.flatten(0, -4)
        numbers = GeneratedNumbers(len(images), generator)
        return self._apply(images, lambda _: numbers).view(x.shape)

    def by_keys(self, x: Tensor, keys: Tensor) -> Tensor:
        """Change images x [..., C, H, W] as their keys [...] say; see `draws.keys_of_sample`."""
        images, of_images = x.flatten(0, -4), keys.flatten()
        return self._apply(images, lambda part: KeyedNumbers(of_images, f"{part}", x.dtype)).view(x.shape)

    def _apply(self, images: Tensor, numbers_of: Callable[[int], RandomNumbers]) -> Tensor:
        """Images [N, C, H, W], changed by the numbers of each part."""
        moved: list[tuple[Warp, Params]] = []
        for index, part in enumerate(self._parts):
            noise = part.draw(numbers_of(index))
            if isinstance(part, Warp):
                moved.append((part, noise))
            else:
                images, moved = part.apply(_warped(images, moved), noise), []
        return _warped(images, moved)


def _warped(images: Tensor, moved: Sequence[tuple[Warp, Params]]) -> Tensor:
    """Images after several warps, by following points from the last image back to the first."""
    if not moved:
        return images
    points = pixels(images)
    for warp, noise in reversed(moved):
        points = warp.move(points, noise)
    return sample(images, points)

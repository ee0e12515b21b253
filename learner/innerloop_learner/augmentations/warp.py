"""Augmentations that move points and leave colours as they are."""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.augmentations.augmentation import Augmentation
from innerloop_learner.tasks import Params


class Warp(Augmentation):
    """Says for each pixel of the new image which point of the old one it shows.

    Points are (x, y) with -1 and 1 at the outer edges of the image. As points are what is changed, several warps one
    after the other take a single interpolation, which blurs less.
    """

    @abstractmethod
    def move(self, points: Tensor, noise: Params) -> Tensor:
        """The points [N, H, W, 2] of the old images that are shown at `points` of the new ones."""

    def apply(self, x: Tensor, noise: Params) -> Tensor:
        """See Augmentation.apply."""
        return sample(x, self.move(pixels(x), noise))


def pixels(x: Tensor) -> Tensor:
    """The centres of the pixels of images x [N, C, H, W], [N, H, W, 2]."""
    across, down = centres(x, -1), centres(x, -2)
    # len(x) would be a constant in an exported graph.
    return torch.stack(torch.meshgrid(across, down, indexing="xy"), -1).expand(x.shape[0], -1, -1, -1)


def centres(x: Tensor, axis: int) -> Tensor:
    """The centres of the columns (axis -1) or rows (axis -2) of images x [N, C, H, W], [W] or [H]."""
    size = x.shape[axis]
    return (2 * torch.arange(size, dtype=x.dtype, device=x.device) + 1) / size - 1


def sample(x: Tensor, points: Tensor) -> Tensor:
    """Images x [N, C, H, W] at points [N, H, W, 2], interpolated linearly; outside, they go on like their edges."""
    return F.grid_sample(x, points, mode="bilinear", padding_mode="border", align_corners=False)

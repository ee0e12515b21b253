"""DropBlock: whole squares of feature maps are dropped while training asks queries.

Adapting and serving drop nothing. What says that features are dropped, and by which numbers, are parameters that an
outer loss adds to those by which it asks queries (`Backbone.disturbed`), and that no bundle holds.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.draws import example_keys, uniform_draws
from innerloop_learner.tasks import Params

SEED, SHARE = "drop_block.seed", "drop_block.share"
"""Names of the parameters that have features dropped: a whole number [1], and the share of each map, [1]."""


def dropping(params: Params, seed: Tensor, share: Tensor) -> Params:
    """The parameters, and with them the wish that features be dropped.

    Args:
        params: parameters of a backbone.
        seed: a whole number [1] that chooses what is dropped, together with the values of an example.
        share: expected share of each feature map that is dropped, [1].
    """
    return {**params, SEED: seed, SHARE: share.float()}


def drop_keys(params: Params, x: Tensor) -> Tensor | None:
    """The keys [T, N] that choose what is dropped for inputs x [T, N, *input]; None if nothing is to be dropped."""
    if SEED not in params:
        return None
    every = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    return example_keys(x, every) + params[SEED]


def drop_block(params: Params, x: Tensor, keys: Tensor, layer: str, size: int) -> Tensor:
    """Drop squares of feature maps, and enlarge the rest so that each task's mean stays.

    Each place where a whole square fits is the corner of one with the probability (Ghiasi, Lin and Le 2018, equation 1)

        share / size^2 * H W / ((H - size + 1) (W - size + 1))

    Args:
        params: parameters that `dropping` gave.
        x: feature maps [T, N, C, H, W].
        keys: keys of the examples [T, N], see `drop_keys`.
        layer: name of the layer; others have other squares.
        size: height and width of the squares, in places of a map; cut to the size of the maps.
    """
    tasks, examples, channels, height, width = x.shape
    tall, wide = min(size, height), min(size, width)
    corners = (height - tall + 1, width - wide + 1)
    drawn = uniform_draws(keys, layer, channels * corners[0] * corners[1], x.dtype)
    probability = params[SHARE] * (height * width / (tall * wide * corners[0] * corners[1]))
    begun = (drawn < probability).to(x.dtype).view(tasks * examples, channels, *corners)
    padded = F.pad(begun, (wide - 1, wide - 1, tall - 1, tall - 1))
    kept = 1 - F.max_pool2d(padded, (tall, wide), stride=1).view(x.shape)
    return x * kept * (kept[0].numel() / kept.sum((1, 2, 3, 4), keepdim=True).clamp(min=1))

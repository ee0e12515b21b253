"""All weights of a task as one row of coordinates, for update rules that treat each coordinate alike."""

import math

import torch
from torch import Tensor

from innerloop_learner.tasks import Params


def flatten(tensors: Params) -> Tensor:
    """Put all entries of the tensors [T, ...] into one row per task, [T, P]."""
    return torch.cat([value.flatten(1) for value in tensors.values()], 1)


def unflatten(flat: Tensor, like: Params) -> Params:
    """Reverse `flatten`: make rows [T, P] tensors with the names and shapes of `like`."""
    parts = torch.split(flat, [value[0].numel() for value in like.values()], 1)
    return {name: part.view_as(value) for (name, value), part in zip(like.items(), parts, strict=True)}


def log_and_sign(values: Tensor, p: float = 10.0) -> Tensor:
    """Split numbers [...] of very different sizes into size and sign, [..., 2] (Andrychowicz et al. 2016, appendix A).

    (log |v| / p, sign v)  where |v| >= exp(-p),   (-1, exp(p) v)  elsewhere
    """
    size = values.abs()
    large = size >= math.exp(-p)
    logarithm = torch.where(large, size, 1.0).log() / p
    first = torch.where(large, logarithm, -1.0)
    second = torch.where(large, values.sign(), math.exp(p) * values)
    return torch.stack([first, second], -1)

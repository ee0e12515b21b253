"""Raw inputs to what learners expect."""

from functools import cache

import torch
from torch import Tensor

from innerloop_learner.spec import InputSpec


def normalise(spec: InputSpec, raw: Tensor) -> Tensor:
    """Turn raw inputs [..., *shape] (any dtype) into what the learner expects, float32 on the same device.

    Both the trainer and the server call this and nothing else, so that they agree.
    """
    mean, std = (_by_channel(values, len(spec.shape), raw.device) for values in (spec.mean, spec.std))
    return (raw.to(torch.float32) * spec.scale - mean) / std


@cache
def _by_channel(values: tuple[float, ...], dimensions: int, device: torch.device) -> Tensor:
    """Values as a tensor [C, 1, ...] of `dimensions` dimensions, so that it broadcasts over channels.

    The tensor is cached, so that it is not copied to a GPU for every request.
    """
    return torch.tensor(values, device=device).reshape(-1, *(1,) * (dimensions - 1))

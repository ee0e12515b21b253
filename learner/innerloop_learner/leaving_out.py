"""What methods share that answer the examples of a support set by the task without them (`Learner.left_out`)."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from innerloop_learner.tasks import Query, Support

NUMBERS_AT_ONCE = 2**24
"""Most numbers that tasks without some examples are computed from at once, which bounds memory: 64 MiB of float32."""

Answer = Callable[[Support, Query], Tensor]
"""Adapts to tasks and answers their queries: logits [T, Q, W], or values [T, Q, D]."""


def in_parts(parts: Tensor, size: int) -> Tensor:
    """Whether each of so many examples S belongs to each part, [T, P, S], from places of examples [T, P, L].

    >>> in_parts(torch.tensor([[[0, 2], [1, -1]]]), 3).long()
    tensor([[[1, 0, 1],
             [0, 1, 0]]])
    """
    return (parts.unsqueeze(-1) == torch.arange(size, device=parts.device)).any(2)


def answers_without(answer: Answer, features: Support, parts: Tensor) -> Tensor:
    """What each task without a part of its examples answers to these, [T, S, W].

    A part that is left out is masked, as padding is.

    Args:
        answer: adapts to features, and answers queries by theirs.
        features: support sets whose inputs are features [T, S, F].
        parts: places of the examples of each part [T, P, L]; -1 for none. Others have the answer zero.
    """
    tasks, size = features.mask.shape
    at_once = max(NUMBERS_AT_ONCE // features.x.numel(), 1)
    answered = [_answered(answer, features, some) for some in torch.split(parts, at_once, 1)]
    found = torch.cat(answered, 1).flatten(1, 2)  # [T, P * L, W]
    places = parts.flatten(1)
    # Padding goes behind the last example, and is cut off.
    places = torch.where(places < 0, size, places).unsqueeze(-1).expand_as(found)
    return found.new_zeros(tasks, size + 1, found.shape[-1]).scatter(1, places, found)[:, :size]


def _answered(answer: Answer, features: Support, parts: Tensor) -> Tensor:
    """The answers to the examples of each part, [T, P, L, W]."""
    tasks, count, together = parts.shape
    rest = features.mask.unsqueeze(1) & ~in_parts(parts, features.mask.shape[1])  # [T, P, S]

    def repeated(tensor: Tensor) -> Tensor:
        return tensor.unsqueeze(1).expand(-1, count, *tensor.shape[1:]).flatten(0, 1)  # [T * P, ...]

    support = replace(
        features,
        x=repeated(features.x),
        y=repeated(features.y),
        mask=rest.flatten(0, 1),
        ways=repeated(features.ways),
    )
    places = parts.clamp(min=0).flatten(1).unsqueeze(-1).expand(-1, -1, features.x.shape[-1])
    left_out = features.x.gather(1, places).view(tasks * count, together, -1)
    return answer(support, Query(left_out, (parts >= 0).flatten(0, 1))).view(tasks, count, together, -1)

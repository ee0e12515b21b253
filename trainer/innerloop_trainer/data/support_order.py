"""The order of examples in a support set."""

import torch
from torch import Tensor

from innerloop_trainer.data.source import EpisodeShape


def draw_order(tasks: int, shape: EpisodeShape, generator: torch.Generator) -> Tensor:
    """A random order [T, S] of support examples grouped by class, in which class k appears before class k + 1."""
    order = torch.rand(tasks, shape.ways * shape.shots, generator=generator, device=generator.device).argsort(1)
    places = order.argsort(1).view(tasks, shape.ways, shape.shots)  # the place of each example
    appearance = places.amin(2).argsort(1).argsort(1)  # [T, W], the rank of each class by first appearance
    renumbered: Tensor = appearance.gather(1, order // shape.shots) * shape.shots + order % shape.shots
    return renumbered

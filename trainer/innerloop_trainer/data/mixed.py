"""Splits whose tasks are mixed with one another, so that there are more of them to learn from."""

import math
from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor

from innerloop_learner.tasks import Episodes, Query
from innerloop_trainer.data.derived import DerivedTasks
from innerloop_trainer.data.source import EpisodeShape, TaskSampler


class MixedTasks(DerivedTasks):
    """A split in which some tasks are mixed with others, class by class (MLTI; Yao, Zhang and Finn 2022, section 4.2).

    With a second task that is drawn for each, whose examples of class c stand for another class, examples are

        l x_c + (1 - l) x'_c,   l ~ Beta(1/2, 1/2), one for each task

    in support set and queries alike. Labels stay whole, since a blend of two classes is a new class. The paper also
    mixes inside of the network; here inputs are mixed, before any method sees them.

    Args:
        tasks: the split as it is.
        share: share of the tasks that are mixed.
    """

    def __init__(self, tasks: TaskSampler, share: float) -> None:
        super().__init__(tasks)
        self._share = share

    def sample(self, shape: EpisodeShape, tasks: int, generator: torch.Generator) -> Episodes:
        """See TaskSampler.sample; classes are none of the split, and domains none at all."""
        drawn = self._tasks.sample(shape, 2 * tasks, generator)
        one, other = drawn.of_tasks(slice(tasks)), drawn.of_tasks(slice(tasks, None))
        device = one.support.x.device
        mixed, place = torch.rand(2, tasks, generator=generator, device=device)
        # The arcsine law, which is Beta(1/2, 1/2), has an inverse that is a function of PyTorch.
        kept = torch.where(mixed < self._share, (math.pi / 2 * place).sin().square(), torch.ones_like(place))
        support, query = one.support, one.query
        x = _blended(support.x, support.y, other.support.x, other.support.y, kept)
        asked = _blended(query.x, one.targets, other.query.x, other.targets, kept)
        return Episodes(replace(support, x=x), Query(asked, query.mask), one.targets)

    def without(self, names: Collection[str]) -> TaskSampler:
        """See TaskSampler.without."""
        return MixedTasks(self._tasks.without(names), self._share)


def _blended(x: Tensor, y: Tensor, other: Tensor, labels: Tensor, kept: Tensor) -> Tensor:
    """Each example x [T, N, *input] of label y [T, N], mixed with one of the same label of the other task.

    Every label has as many examples in one task as in the other. `kept` [T] is the share of x.
    """
    places = y.argsort(dim=1, stable=True).argsort(1)  # of each example among those of its task, by label
    partners = labels.argsort(dim=1, stable=True).gather(1, places)
    aligned = other[torch.arange(len(x), device=x.device).unsqueeze(1), partners]
    share = kept.to(x.dtype).view(-1, *(1,) * (x.dim() - 1))
    return share * x + (1 - share) * aligned

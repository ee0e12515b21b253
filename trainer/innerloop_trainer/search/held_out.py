"""Training tasks and held-out tasks in one batch."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from innerloop_learner.augmentations import Augment
from innerloop_learner.tasks import Episodes, Query
from innerloop_trainer.data import EpisodeShape, TaskSampler


class BesideHeldOut(TaskSampler):
    """A split that draws the first half of its tasks from training classes, and the second half from held-out ones.

    Args:
        training: split of the first half; its classes are those that the split names.
        held_out: split of the second half.
    """

    def __init__(self, training: TaskSampler, held_out: TaskSampler) -> None:
        self.names, self.digests, self.labelled = training.names, training.digests, training.labelled
        self._halves = training, held_out

    def sample(self, shape: EpisodeShape, tasks: int, generator: torch.Generator) -> Episodes:
        """See TaskSampler.sample."""
        training, held_out = self._halves
        first, second = (
            training.sample(shape, tasks // 2, generator),
            held_out.sample(shape, tasks - tasks // 2, generator),
        )

        def both(of: Callable[[Episodes], Tensor]) -> Tensor:
            return torch.cat([of(first), of(second)])

        support = replace(
            first.support,
            x=both(lambda episodes: episodes.support.x),
            y=both(lambda episodes: episodes.support.y),
            mask=both(lambda episodes: episodes.support.mask),
            ways=both(lambda episodes: episodes.support.ways),
        )
        query = Query(both(lambda episodes: episodes.query.x), both(lambda episodes: episodes.query.mask))
        return Episodes(support, query, both(lambda episodes: episodes.targets))

    def without_labels(self, augment: Augment) -> TaskSampler:
        """See TaskSampler.without_labels."""
        training, held_out = self._halves
        return BesideHeldOut(training.without_labels(augment), held_out.without_labels(augment))

    def check(self, shape: EpisodeShape) -> None:
        """See TaskSampler.check."""
        for half in self._halves:
            half.check(shape)

"""Episodes with distractors: queries of classes that the task does not have."""

from dataclasses import replace

import torch
from torch import Tensor

from innerloop_learner.tasks import Episodes, Query, Support
from innerloop_trainer.data import EpisodeShape, TaskSampler

UNKNOWN = -1
"""Target of queries whose class is none of the task's."""

MOST_DISTRACTORS = 5
"""Most classes of a task that only queries are of."""


def distractors_for(sampler: TaskSampler, ways: int) -> int:
    """Classes that tasks of so many ways can have besides; zero if the split has no more classes."""
    return max(0, min(ways, MOST_DISTRACTORS, sampler.ways_anywhere - ways))


def sample_open(
    sampler: TaskSampler, shape: EpisodeShape, distractors: int, tasks: int, generator: torch.Generator
) -> Episodes:
    """Draw episodes of `shape` whose queries are also of `distractors` further classes, as many of each class.

    The targets of those queries are UNKNOWN. Equal generators draw equal episodes.

    Raises:
        DataError: the split has too few classes or examples.

    Example:
        >>> from innerloop_trainer.data import load_source
        >>> generator = torch.Generator().manual_seed(0)
        >>> drawn = sample_open(load_source("digits").train, EpisodeShape(2, 3, 4), 1, 2, generator)
        >>> tuple(drawn.support.y.shape), [(row == UNKNOWN).sum().item() for row in drawn.targets]
        ((2, 6), [4, 4])
    """
    ways = shape.ways
    episodes = sampler.sample(replace(shape, ways=ways + distractors), tasks, generator)
    support = episodes.support
    kept = support.y < ways  # as many in each task
    return replace(
        episodes,
        support=Support(
            _kept(support.x, kept),
            _kept(support.y, kept),
            _kept(support.mask, kept),
            torch.full_like(support.ways, ways),
            ways,
        ),
        query=Query(episodes.query.x, episodes.query.mask),
        targets=episodes.targets.masked_fill(episodes.targets >= ways, UNKNOWN),
        classes=None if episodes.classes is None else episodes.classes[:, :ways],
    )


def _kept(values: Tensor, kept: Tensor) -> Tensor:
    """The chosen values of each task [T, K, ...] out of [T, S, ...], in their order."""
    return values[kept].view(len(kept), -1, *values.shape[2:])

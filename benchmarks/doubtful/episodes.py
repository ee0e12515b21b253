"""Episodes with wrong labels."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from asked import AT_ONCE
from torch import Tensor

from innerloop_learner.tasks import Episodes
from innerloop_trainer.data import EpisodeShape, TaskSampler
from innerloop_trainer.data.wrong_labels import mislabelled
from innerloop_trainer.seeds import generator_for


@dataclass(frozen=True)
class Wrong:
    """Wrong labels of an episode: so many in each class, or a single one in the whole task."""

    of_class: int = 0
    single: bool = False


def drawn(
    sampler: TaskSampler, shape: EpisodeShape, wrong: Wrong, episodes: int, seed: int
) -> Iterator[tuple[Episodes, Tensor]]:
    """Batches of episodes, and the labels [T, S] that are given to their examples; those of the episodes are true."""
    for start in range(0, episodes, AT_ONCE):
        generator = generator_for(seed, "doubtful", start, "cpu")
        tasks = min(AT_ONCE, episodes - start)
        batch = sampler.sample(shape, tasks, generator)
        true = batch.support.y
        count = torch.full((tasks,), wrong.of_class)
        given = mislabelled(true, shape.ways, count, generator) if wrong.of_class else true.clone()
        if wrong.single:
            rows, place = torch.arange(tasks), torch.randint(true.shape[1], (tasks,), generator=generator)
            other = torch.randint(1, shape.ways, (tasks,), generator=generator)
            given[rows, place] = (given[rows, place] + other) % shape.ways
        yield batch, given

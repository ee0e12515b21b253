"""The answers of a model to many episodes, with the truth beside them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from innerloop_learner.learner import Learner
from innerloop_learner.tasks import Episodes, Params
from innerloop_trainer.calibration.open_episodes import UNKNOWN, distractors_for, sample_open
from innerloop_trainer.data import EpisodeShape, TaskSampler
from innerloop_trainer.progress import progress_of
from innerloop_trainer.seeds import generator_for

TASKS_AT_ONCE = 25

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class ClassAnswers:
    """The logits that a model gave to the queries of E classification tasks.

    Attributes:
        logits: of queries of the tasks' classes [E, Q, W].
        targets: their classes [E, Q].
        unknown: logits of queries of other classes [E, U, W]; U is zero if there were none.
    """

    logits: Floats
    targets: NDArray[np.int64]
    unknown: Floats


@torch.no_grad()
def answers_of_classes(
    learner: Learner,
    params: Params,
    sampler: TaskSampler,
    shape: EpisodeShape,
    *,
    episodes: int,
    seed: int,
    steps: int | None = None,
) -> ClassAnswers:
    """Adapt to classification episodes, and answer queries of their classes and of others.

    Args:
        learner: learner to ask.
        params: its parameters.
        sampler: split to draw from.
        shape: shape of the episodes; distractor classes come besides its ways, as many as there are, at most 5.
        episodes: number of episodes.
        seed: seed of the episodes.
        steps: number of inner steps; None for the learner's default.

    Raises:
        DataError: the split can't give such episodes.
        TaskError: the learner can't take that many ways, or that few.
    """
    distractors = distractors_for(sampler, shape.ways)
    logits, targets, unknown = [], [], []
    device = next(iter(params.values())).device
    for tasks, generator in _batches(shape, seed, episodes, device):
        batch = sample_open(sampler, shape, distractors, tasks, generator)
        answers = _outputs(learner, params, batch, steps)[..., : shape.ways]
        others = batch.targets == UNKNOWN
        logits.append(answers[~others].reshape(tasks, -1, shape.ways).cpu().numpy())
        targets.append(batch.targets[~others].reshape(tasks, -1).cpu().numpy())
        count = distractors * shape.queries
        unknown.append(answers[others].reshape(tasks, count, shape.ways).cpu().numpy())
    return ClassAnswers(*map(np.concatenate, (logits, targets, unknown)))


@torch.no_grad()
def errors_of_values(
    learner: Learner,
    params: Params,
    sampler: TaskSampler,
    shape: EpisodeShape,
    *,
    episodes: int,
    seed: int,
    steps: int | None = None,
) -> Floats:
    """Absolute errors of the values that a model answers to regression episodes, [E, Q * D].

    Arguments as those of `answers_of_classes`.
    """
    device = next(iter(params.values())).device
    errors = []
    for tasks, generator in _batches(shape, seed, episodes, device):
        batch = sampler.sample(shape, tasks, generator)
        errors.append((_outputs(learner, params, batch, steps) - batch.targets).abs().flatten(1).cpu().numpy())
    return np.concatenate(errors)


def _batches(
    shape: EpisodeShape, seed: int, episodes: int, device: torch.device
) -> Iterator[tuple[int, torch.Generator]]:
    """Sizes and generators of the batches that make up the episodes; reports how many are done."""
    size = f"{shape.ways} ways and {shape.shots} shots" if shape.ways else f"{shape.shots} shots"
    with progress_of(f"Calibration at {size}", episodes, "episodes") as advance:
        for start in range(0, episodes, TASKS_AT_ONCE):
            tasks = min(TASKS_AT_ONCE, episodes - start)
            yield tasks, generator_for(seed, "calibration", start, device)
            advance(tasks)


def _outputs(learner: Learner, params: Params, batch: Episodes, steps: int | None) -> torch.Tensor:
    support = replace(batch.support, max_ways=learner.padded_ways(batch.support.max_ways))
    return learner.predict(params, learner.adapt(params, support, steps).state, batch.query)

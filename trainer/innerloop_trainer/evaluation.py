"""How good a learner is on unseen classes."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from innerloop_learner.bundle import Metric
from innerloop_learner.learner import Learner
from innerloop_learner.losses import masked_mean
from innerloop_learner.state import STATISTICS
from innerloop_learner.tasks import Episodes, Params, TaskState
from innerloop_trainer.data import EpisodeShape, TaskSampler
from innerloop_trainer.seeds import generator_for

Protocol = Literal["inductive", "transductive"]

EPISODES_PER_BATCH = 25
"""Part of the protocol: the episodes drawn from a seed depend on it."""


class EvaluationError(ValueError):
    """An evaluation that would not mean what it says."""


@dataclass(frozen=True)
class Evaluation:
    """Result over many episodes.

    Attributes:
        metric: "accuracy", or "mean_squared_error" for regression.
        values: of each episode [E].
        protocol: inductive unless queries normalised each other.
        shape: of the episodes.
        split: they were drawn from.
    """

    metric: str
    values: Tensor
    protocol: Protocol
    shape: EpisodeShape
    split: str

    @property
    def mean(self) -> float:
        """Mean over episodes."""
        return self.values.mean().item()

    @property
    def confidence_interval(self) -> float:
        """Half width of the 95% confidence interval of the mean."""
        return confidence_interval(self.values)

    def to_metric(self, data: str) -> Metric:
        """As a manifest records it."""
        shots = f"{self.shape.ways}-way {self.shape.shots}-shot"
        shots = shots if self.metric == "accuracy" else f"{self.shape.shots}-shot"
        protocol = f"{self.protocol}, {shots}, {len(self.values)} {self.split} episodes, {data}"
        return Metric(self.metric, self.mean, self.confidence_interval, protocol)


def confidence_interval(values: Tensor) -> float:
    """Half width of the 95% confidence interval of the mean of values [E], by the normal approximation."""
    return 1.96 * values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.inf


def evaluation_batches(
    seed: int, episodes: int, device: torch.device | str = "cpu"
) -> Iterator[tuple[int, torch.Generator]]:
    """Sizes and generators of the batches that make up `episodes` episodes; a seed always gives the same ones."""
    for start in range(0, episodes, EPISODES_PER_BATCH):
        tasks = min(EPISODES_PER_BATCH, episodes - start)
        yield tasks, generator_for(seed, "evaluation", start, device)


@torch.no_grad()
def evaluate(
    learner: Learner,
    params: Params,
    sampler: TaskSampler,
    shape: EpisodeShape,
    *,
    split: str,
    episodes: int = 600,
    seed: int = 0,
    steps: int | None = None,
    protocol: Protocol = "inductive",
) -> Evaluation:
    """Adapt to episodes of unseen classes and score the answers to their queries.

    Args:
        learner: to evaluate.
        params: its parameters; episodes are drawn on their device.
        sampler: split to draw from.
        shape: of the episodes.
        split: name of that split, for the record.
        episodes: how many.
        seed: of the episodes.
        steps: inner steps; the learner's default when None.
        protocol: transductive lets the queries of a task normalise each other, as many papers do; it never serves.

    Raises:
        DataError: the split can't give such episodes.
        EvaluationError: transductive was asked of a learner whose queries are normalised without the support set.
    """
    device = next(iter(params.values())).device
    scores = []
    for tasks, generator in evaluation_batches(seed, episodes, device):
        batch = sampler.sample(shape, tasks, generator)
        state = learner.adapt(params, batch.support, steps).state
        if protocol == "transductive":
            state = _without_statistics(state)
        scores.append(score(learner.predict(params, state, batch.query), batch))
    metric = "accuracy" if learner.spec.task_kind == "classification" else "mean_squared_error"
    return Evaluation(metric, torch.cat(scores).double().cpu(), protocol, shape, split)


def score(outputs: Tensor, episodes: Episodes) -> Tensor:
    """Accuracy, or mean squared error, of each task [T]."""
    if episodes.targets.is_floating_point():
        return masked_mean((outputs - episodes.targets).square().mean(-1), episodes.query.mask)
    return masked_mean((outputs.argmax(-1) == episodes.targets).float(), episodes.query.mask)


def _without_statistics(state: TaskState) -> TaskState:
    """A state that makes `predict` normalise queries by their own moments."""
    kept = {name: value for name, value in state.items() if not name.startswith(STATISTICS)}
    if len(kept) == len(state):
        raise EvaluationError(
            "this model normalises queries without the support set, so a transductive evaluation would equal the "
            "inductive one; leave --protocol out"
        )
    return kept

"""Measures a learner on classes that it has not seen."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from innerloop_learner.learner import Learner
from innerloop_learner.losses import weighted_mean
from innerloop_learner.manifest import Metric
from innerloop_learner.spec import InputSpec
from innerloop_learner.state import STATISTICS
from innerloop_learner.tasks import Episodes, Params, TaskState
from innerloop_learner.traits import TaskKind
from innerloop_trainer.data import DataSource, EpisodeShape, TaskSampler
from innerloop_trainer.progress import progress_of
from innerloop_trainer.seeds import generator_for
from innerloop_trainer.seen_classes import describe_classes

Protocol = Literal["inductive", "transductive"]

EPISODES_PER_BATCH = 25
"""Episodes evaluated at once. The episodes that a seed draws depend on this number, so changing it changes figures."""


class EvaluationError(ValueError):
    """An evaluation would not measure what was asked for."""


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation over many episodes.

    Attributes:
        metric: "accuracy", or "mean_squared_error" for regression.
        values: the metric of each episode [E].
        protocol: "transductive" if the queries of a task normalised each other, otherwise "inductive".
        shape: shape of the episodes.
        split: name of the split that episodes were drawn from.
        steps: number of inner steps; None for the model's default.
        classes: number of classes that episodes were drawn from, and a digest of them; empty for regression.
    """

    metric: str
    values: Tensor
    protocol: Protocol
    shape: EpisodeShape
    split: str
    steps: int | None = None
    classes: str = ""

    @property
    def mean(self) -> float:
        """Mean over episodes."""
        return self.values.mean().item()

    @property
    def confidence_interval(self) -> float:
        """Half width of the 95% confidence interval of the mean."""
        return confidence_interval(self.values)

    def to_metric(self, data: str) -> Metric:
        """The figure in the form that a manifest records; `data` is the name of the source."""
        shots = f"{self.shape.ways}-way {self.shape.shots}-shot"
        shots = shots if self.metric == "accuracy" else f"{self.shape.shots}-shot"
        if self.shape.most_wrong:
            shots += f" (up to {self.shape.most_wrong} of them wrong)"
        steps = "" if self.steps is None else f"{self.steps} inner steps, "
        protocol = f"{self.protocol}, {shots}, {steps}{len(self.values)} {self.split} episodes, {data}"
        return Metric(self.metric, self.mean, self.confidence_interval, protocol, self.classes)


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
        learner: learner to evaluate.
        params: its parameters; episodes are drawn on their device.
        sampler: split to draw from.
        shape: shape of the episodes.
        split: name of that split, which the result records, with the word "unlabelled" where it is without labels.
        episodes: number of episodes.
        seed: seed of the episodes.
        steps: number of inner steps; None for the learner's default.
        protocol: "transductive" lets the queries of a task normalise each other, as in many papers; servers never do.

    Raises:
        DataError: the split can't give such episodes.
        TaskError: the learner can't take that many ways, or that few.
        EvaluationError: "transductive" was asked for, but this learner normalises queries without the support set; or
            it does not serve that many inner steps.

    Example:
        >>> from innerloop_learner import LearnerSpec, build_learner
        >>> from innerloop_trainer.data import load_source
        >>> source = load_source("digits")
        >>> learner = build_learner(LearnerSpec("protonet", source.input, backbone="mlp"))
        >>> params = learner.init(torch.Generator().manual_seed(0))
        >>> shape = EpisodeShape(ways=2, shots=5, queries=5)
        >>> evaluate(learner, params, source.test, shape, split="test", episodes=50).mean > 0.6
        True
    """
    _check_steps(learner, steps)
    device = next(iter(params.values())).device
    scores = []
    with progress_of(f"Measuring on the {split} split", episodes, "episodes") as advance:
        for tasks, generator in evaluation_batches(seed, episodes, device):
            batch = sampler.sample(shape, tasks, generator)
            support = replace(batch.support, max_ways=learner.padded_ways(batch.support.max_ways))
            state = learner.adapt(params, support, steps).state
            if protocol == "transductive":
                state = _without_statistics(state)
            scores.append(score(learner.predict(params, state, batch.query), batch))
            advance(tasks)
    other_steps = None if steps == learner.default_steps else steps
    return Evaluation(
        metric_name(learner.spec.task_kind),
        torch.cat(scores).double().cpu(),
        protocol,
        shape,
        split if sampler.labelled else f"unlabelled {split}",
        other_steps,
        describe_classes(sampler),
    )


def metric_name(kind: TaskKind) -> str:
    """The name of the metric for tasks of this kind: "accuracy" or "mean_squared_error"."""
    return "accuracy" if kind == "classification" else "mean_squared_error"


def check_source(learner: Learner, source: DataSource) -> None:
    """Check that a source's inputs and targets are those of the learner, since the server normalises by the bundle.

    Raises:
        EvaluationError: inputs or targets differ.
    """
    spec, name = learner.spec, source.name
    if (spec.task_kind, spec.target_size) != (source.task_kind, source.target_size):
        raise EvaluationError(
            f"this model solves {_kind(spec.task_kind, spec.target_size)} tasks, "
            f"{name} has {_kind(source.task_kind, source.target_size)} tasks"
        )
    if source.texts:
        raise EvaluationError(f"{name} has texts, and this model has no encoder of texts")
    ours, theirs = spec.input, source.input
    if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
        raise EvaluationError(f"this model takes inputs of {_layout(ours)}, {name} has inputs of {_layout(theirs)}")
    if ours != theirs:
        raise EvaluationError(
            f"this model normalises inputs with {_normalisation(ours)}, {name} with {_normalisation(theirs)}; a figure "
            f"measured so would not be what a server gives"
        )


def _kind(kind: TaskKind, target_size: int) -> str:
    return f"{kind} ({target_size} target values)" if kind == "regression" else kind


def _layout(inputs: InputSpec) -> str:
    return f"{'x'.join(map(str, inputs.shape))} {inputs.dtype}"


def _normalisation(inputs: InputSpec) -> str:
    return f"mean {list(inputs.mean)}, std {list(inputs.std)}, scale {inputs.scale:.4g}"


def _check_steps(learner: Learner, steps: int | None) -> None:
    if steps is not None and not 0 <= steps <= learner.max_steps:
        takes = (
            f"takes 0 to {learner.max_steps} inner steps, not {steps}" if learner.max_steps else "has no inner steps"
        )
        raise EvaluationError(f"this {learner.info.name} model {takes}; leave --steps out or change it")


def score(outputs: Tensor, episodes: Episodes) -> Tensor:
    """Accuracy, or mean squared error, of each task [T]."""
    if episodes.targets.is_floating_point():
        return weighted_mean((outputs - episodes.targets).square().mean(-1), episodes.query.mask)
    return weighted_mean((outputs.argmax(-1) == episodes.targets).float(), episodes.query.mask)


def _without_statistics(state: TaskState) -> TaskState:
    """A state that makes `predict` normalise queries by their own moments."""
    kept = {name: value for name, value in state.items() if not name.startswith(STATISTICS)}
    if len(kept) == len(state):
        raise EvaluationError(
            "this model normalises queries without the support set, so a transductive evaluation would equal the "
            "inductive one; leave --protocol out"
        )
    return kept

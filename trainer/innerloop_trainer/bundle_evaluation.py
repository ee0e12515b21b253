"""Measures a bundle on classes that it was not trained on."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from innerloop_learner.bundle import Bundle
from innerloop_learner.manifest import Manifest, Metric
from innerloop_trainer.config import TrainingConfig
from innerloop_trainer.data import DataSource, EpisodeShape, TaskSampler, load_source
from innerloop_trainer.encoders import load_for_encoder, open_bundled
from innerloop_trainer.evaluation import Protocol, check_source, evaluate
from innerloop_trainer.seen_classes import Split, leave_out_seen


@dataclass(frozen=True)
class BundleFigure:
    """A figure of a bundle, and the data that it was measured on.

    Attributes:
        metric: the figure.
        source: source of the episodes.
        left_out: names of the classes of the split that were left out, because the bundle was trained or validated on
            them.
        steps: number of inner steps.
        sampler: the classes that it was measured on.
        shape: shape of the episodes.
    """

    metric: Metric
    source: DataSource
    left_out: Sequence[str]
    steps: int
    sampler: TaskSampler
    shape: EpisodeShape


def evaluate_bundle(
    bundle: Bundle,
    data: str,
    device: torch.device,
    *,
    split: Split | None = None,
    ways: int | None = None,
    shots: int | None = None,
    queries: int = 15,
    episodes: int = 600,
    seed: int = 0,
    steps: int | None = None,
    protocol: Protocol = "inductive",
) -> BundleFigure:
    """Measure a bundle on a split of some data, without the classes that it has seen.

    Args:
        bundle: bundle to measure, loaded onto `device`.
        data: source of the episodes, for example "omniglot:PATH".
        device: device to evaluate on.
        split: split that episodes are drawn from; None for the test split, or for all classes if nothing was
            meta-trained.
        ways: classes per task; None for as many as in training.
        shots: support examples per class; None for as many as in training.
        queries: queries per class.
        episodes: number of episodes.
        seed: seed of the episodes.
        steps: number of inner steps; None for the bundle's default.
        protocol: see `evaluate`.

    Raises:
        DataError, EncoderError: the data can't be used, or not by this bundle's encoder.
        TaskError: the bundle can't take that many ways, or that few.
        EvaluationError: the data is not of the bundle's kind.
        SeenClassesError: too few classes are left that the bundle has not seen.
    """
    manifest = bundle.manifest
    source = load_source_of(bundle, data, device)
    if split is None:
        split = "test" if manifest.provenance.meta_trained or source.task_kind == "regression" else "all"
    shape = EpisodeShape(*_usual_size(manifest, ways, shots), queries)
    sampler, left_out = leave_out_seen(_split(source, split), split, manifest.provenance.classes, shape.ways)
    result = evaluate(
        bundle.learner,
        bundle.params,
        sampler,
        shape,
        split="all-class" if split == "all" else split,
        episodes=episodes,
        seed=seed,
        steps=steps,
        protocol=protocol,
    )
    return BundleFigure(
        result.to_metric(source.name),
        source,
        left_out,
        bundle.learner.default_steps if steps is None else steps,
        sampler,
        shape,
    )


def load_source_of(bundle: Bundle, data: str, device: torch.device) -> DataSource:
    """Some data as a bundle takes it, encoded if the bundle has an encoder.

    Raises:
        DataError, EncoderError: the data can't be used, or not by this bundle's encoder.
        EvaluationError: the data is not of the bundle's kind.
    """
    encoder = bundle.manifest.encoder
    if encoder is None:
        source = load_source(data, device)
    else:
        source = load_for_encoder(data, device, open_bundled(encoder, bundle.files, device))
    check_source(bundle.learner, source)
    return source


def _usual_size(manifest: Manifest, ways: int | None, shots: int | None) -> tuple[int, int]:
    """Ways and shots of episodes: those given, those of training, or those that training usually has."""
    usual = TrainingConfig.ways if manifest.learner.task_kind == "classification" else 1
    limits = manifest.limits
    return ways or limits.trained_ways or usual, shots or limits.trained_shots or TrainingConfig.shots


def _split(source: DataSource, split: Split) -> TaskSampler:
    if split == "all":
        return source.train.joined(source.validation, source.test)
    sampler: TaskSampler = getattr(source, split)
    return sampler

"""Measures a bundle on classes that it was not trained on."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from innerloop_learner.bundle import Bundle
from innerloop_learner.manifest import Metric
from innerloop_trainer.data import DataSource, EpisodeShape, load_source
from innerloop_trainer.data.encoded import encoded
from innerloop_trainer.encoder_file import open_bundled
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
    """

    metric: Metric
    source: DataSource
    left_out: Sequence[str]
    steps: int


def evaluate_bundle(
    bundle: Bundle,
    data: str,
    device: torch.device,
    *,
    split: Split = "test",
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
        split: split that episodes are drawn from.
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
    source = load_source(data, device)
    if bundle.manifest.encoder is not None:
        source = encoded(source, open_bundled(bundle.manifest.encoder, bundle.files, device))
    check_source(bundle.learner, source)
    limits = bundle.manifest.limits
    shape = EpisodeShape(ways or limits.trained_ways or 1, shots or limits.trained_shots, queries)
    sampler, left_out = leave_out_seen(getattr(source, split), split, bundle.manifest.provenance.classes, shape.ways)
    result = evaluate(
        bundle.learner,
        bundle.params,
        sampler,
        shape,
        split=split,
        episodes=episodes,
        seed=seed,
        steps=steps,
        protocol=protocol,
    )
    return BundleFigure(
        result.to_metric(source.name), source, left_out, bundle.learner.default_steps if steps is None else steps
    )

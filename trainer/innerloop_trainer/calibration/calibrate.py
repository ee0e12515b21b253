"""Calibrates a model on classes that it was not trained on."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from innerloop_learner.bundle import Bundle
from innerloop_learner.calibration import Calibration, TaskCalibration
from innerloop_learner.learner import Learner
from innerloop_learner.manifest import Manifest, TaskLimits
from innerloop_learner.settings import SettingsError
from innerloop_learner.tasks import Params
from innerloop_trainer.bundle_evaluation import load_source_of
from innerloop_trainer.calibration.answers import answers_of_classes, errors_of_values
from innerloop_trainer.calibration.fit import FEWEST_EPISODES, USUAL_EPISODES, fit_classes, fit_values
from innerloop_trainer.calibration.open_episodes import distractors_for
from innerloop_trainer.config import TrainingConfig
from innerloop_trainer.data import DataError, EpisodeShape, TaskSampler
from innerloop_trainer.seen_classes import joined_records, known_digests, leave_out_seen

QUERIES = 3
"""Queries of each class in the episodes that a calibration is made with; what counts is the number of episodes."""

FEWEST_CLASSES = 10
"""Classes below which a calibration would say more of these classes than of others: with two, plain probabilities were
closer to the truth on unseen classes than calibrated ones."""

USUAL_WAYS, USUAL_SHOTS = (2, 5, 20), (1, 5)
"""Sizes of tasks that a calibration is made for, besides those of training."""


class CalibrationError(ValueError):
    """A model can't be calibrated as asked; the message says what to change."""


def usual_sizes(limits: TaskLimits, learner: Learner) -> list[tuple[int, int]]:
    """Ways and shots of the tasks that a calibration is made for: those of training, and the usual ones around them."""
    shots = sorted({limits.trained_shots or TrainingConfig.shots, *USUAL_SHOTS})
    if learner.spec.task_kind == "regression":
        return [(0, each) for each in shots]
    trained = limits.trained_ways or TrainingConfig.ways
    ways = {trained, *USUAL_WAYS} if learner.traits.ways_can_change != "no" else {trained}
    return [(each, some) for each in sorted(ways) if each <= limits.max_ways for some in shots]


def calibrate(
    learner: Learner,
    params: Params,
    sampler: TaskSampler,
    sizes: Sequence[tuple[int, int]],
    *,
    data: str,
    episodes: int,
    seed: int,
) -> Calibration:
    """Calibrate a model with a split.

    Sizes that the split can't give are left out, for want of classes or examples.

    Args:
        learner: learner to calibrate.
        params: its parameters.
        sampler: split that the model has not been trained on.
        sizes: ways and shots of tasks.
        data: name of the split, which the calibration records.
        episodes: episodes of each size, at least FEWEST_EPISODES.
        seed: seed of the episodes.

    Raises:
        CalibrationError: there are too few episodes or classes, the split can't give any of the sizes, or adapting
            diverges.

    Example:
        >>> from innerloop_learner import LearnerSpec, build_learner
        >>> from innerloop_trainer.data import load_source
        >>> source = load_source("digits")
        >>> classes = source.train.joined(source.validation, source.test)
        >>> learner = build_learner(LearnerSpec("protonet", source.input, backbone="mlp"))
        >>> params = learner.init(torch.Generator().manual_seed(0))
        >>> made = calibrate(learner, params, classes, [(2, 5)], data="digits", episodes=100, seed=0)
        >>> made.at(2, 5).knows, made.at(2, 5).temperature > 0
        (True, True)
    """
    if episodes < FEWEST_EPISODES:
        raise CalibrationError(f"{episodes} episodes are too few to calibrate with; at least {FEWEST_EPISODES} are")
    if not sampler.labelled:
        raise CalibrationError("a model can be calibrated with labelled classes only; name data that has labels")
    if learner.spec.task_kind == "classification" and len(sampler.names) < FEWEST_CLASSES:
        raise CalibrationError(
            f"{len(sampler.names)} classes are too few to calibrate with; at least {FEWEST_CLASSES} are needed that "
            "the model was not trained on"
        )
    made: list[TaskCalibration] = []
    refused = ""
    for ways, shots in sizes:
        shape = EpisodeShape(ways, shots, QUERIES)
        try:
            sampler.check(replace(shape, ways=ways + distractors_for(sampler, ways)))
        except DataError as error:
            refused = str(error)
            continue
        made.append(_calibrate_size(learner, params, sampler, shape, episodes, seed))
    if not made:
        raise CalibrationError(f"the data gives no tasks to calibrate with: {refused}")
    return Calibration(made, data, episodes)


def calibrate_bundle(
    bundle: Bundle,
    data: str,
    device: torch.device,
    *,
    sizes: Sequence[tuple[int, int]] | None = None,
    episodes: int = USUAL_EPISODES,
    seed: int = 0,
) -> Manifest:
    """The manifest of a bundle with a calibration, in place of one that it has.

    The classes are those of the validation split; if nothing was meta-trained, those of the training split too, of
    which the model has seen none either. They are recorded as seen, so that evaluations leave them out.

    Args:
        bundle: bundle to calibrate, loaded onto `device`.
        data: source of the episodes, for example "omniglot:PATH".
        device: device to compute on.
        sizes: ways and shots of tasks; None for `usual_sizes`.
        episodes: episodes of each size.
        seed: seed of the episodes.

    Raises:
        CalibrationError: see `calibrate`.
        DataError, EncoderError: the data can't be used, or not by this bundle's encoder.
        EvaluationError: the data is not of the bundle's kind.
        SeenClassesError: the model was trained on all of the classes.
    """
    manifest = bundle.manifest
    most = manifest.limits.max_ways
    if sizes is not None and any(ways > most for ways, _ in sizes):
        raise CalibrationError(f"this model takes at most {most} classes; name smaller sizes")
    source = load_source_of(bundle, data, device)
    sampler, split = source.validation, "validation split"
    if not manifest.provenance.meta_trained and source.task_kind == "classification":
        sampler, split = source.train.joined(source.validation), "training and validation splits"
    sampler, _ = leave_out_seen(sampler, "validation", manifest.provenance.classes, 2)
    try:
        calibration = calibrate(
            bundle.learner,
            bundle.params,
            sampler,
            usual_sizes(manifest.limits, bundle.learner) if sizes is None else sizes,
            data=f"{split} of {source.name}",
            episodes=episodes,
            seed=seed,
        )
    except SettingsError as error:
        raise CalibrationError(f"this model does not take such tasks: {error}") from error
    seen = joined_records(manifest.provenance.classes, {"validation": " ".join(known_digests(sampler))})
    seen = {split: digests for split, digests in seen.items() if digests}
    return replace(manifest, calibration=calibration, provenance=replace(manifest.provenance, classes=seen))


def _calibrate_size(
    learner: Learner, params: Params, sampler: TaskSampler, shape: EpisodeShape, episodes: int, seed: int
) -> TaskCalibration:
    if learner.spec.task_kind == "regression":
        errors = errors_of_values(learner, params, sampler, shape, episodes=episodes, seed=seed)
        _check_finite(errors)
        return fit_values(errors, shape.shots)
    answers = answers_of_classes(learner, params, sampler, shape, episodes=episodes, seed=seed)
    _check_finite(answers.logits, answers.unknown)
    return fit_classes(answers, shape.shots)


def _check_finite(*answers: NDArray[np.floating[Any]]) -> None:
    if not all(np.isfinite(some).all() for some in answers):
        raise CalibrationError(
            "some answers are no finite numbers: adapting diverges on some tasks; lower the learning rate inside"
        )

"""The calibration that a finished run ends with."""

from dataclasses import replace

from innerloop_learner.bundle import load_bundle, save_bundle
from innerloop_learner.manifest import Manifest
from innerloop_trainer.calibration import calibrate, usual_sizes
from innerloop_trainer.calibration.fit import USUAL_EPISODES
from innerloop_trainer.runs.training import Training

FEWEST_OF_RUNS = 200
"""Episodes of each size after a short run, which would otherwise take less time than its calibration."""


def calibrate_run(training: Training, episodes: int | None) -> Manifest:
    """Calibrate a run's best parameters with the validation split, and write the figures into their bundle.

    Args:
        training: the finished run.
        episodes: episodes of each size of tasks; None for as many as outer steps, from 200 to 1,000.

    Returns:
        the manifest as written.

    Raises:
        CalibrationError: the validation split can't give such tasks.
    """
    folder, source = training.folder, training.source
    if episodes is None:
        episodes = min(max(training.plan.iterations, FEWEST_OF_RUNS), USUAL_EPISODES)
    bundle = load_bundle(folder.bundle, training.device)
    calibration = calibrate(
        bundle.learner,
        bundle.params,
        source.validation,
        usual_sizes(bundle.manifest.limits, bundle.learner),
        data=f"validation split of {source.name}",
        episodes=episodes,
        seed=training.plan.config.seed,
    )
    return save_bundle(folder.bundle, replace(bundle.manifest, calibration=calibration), bundle.params, bundle.files)

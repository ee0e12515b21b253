"""The calibration that a finished run ends with."""

from dataclasses import replace

from innerloop_learner.bundle import load_bundle, save_bundle
from innerloop_learner.manifest import Manifest
from innerloop_trainer.calibration import calibrate, usual_sizes
from innerloop_trainer.calibration.fit import USUAL_EPISODES
from innerloop_trainer.measuring import is_short, tasks_to_measure
from innerloop_trainer.runs.room import saving
from innerloop_trainer.runs.training import Training


def calibrate_run(training: Training, episodes: int | None) -> Manifest:
    """Calibrate a run's best parameters with the validation split, and write the figures into their bundle.

    Args:
        training: the finished run.
        episodes: episodes of each size of tasks; None for as many as outer steps, from 100 to 1,000, and after a short
            run (`measuring.is_short`) of the size of training only.

    Returns:
        the manifest as written.

    Raises:
        CalibrationError: the validation split can't give such tasks.
        UnsavedError: there is no room for the figures.
    """
    folder, source, plan = training.folder, training.source, training.plan
    bundle = load_bundle(folder.bundle, training.device)
    sizes = usual_sizes(bundle.manifest.limits, bundle.learner)
    if episodes is None:
        episodes = tasks_to_measure(plan.config.method, plan.iterations, USUAL_EPISODES)
        if is_short(plan.config.method, plan.iterations):
            sizes = [(plan.limits.trained_ways, plan.limits.trained_shots)]
    calibration = calibrate(
        bundle.learner,
        bundle.params,
        source.validation,
        sizes,
        data=f"validation split of {source.name}",
        episodes=episodes,
        seed=plan.config.seed,
    )
    with saving("the calibration", folder.path):
        return save_bundle(
            folder.bundle, replace(bundle.manifest, calibration=calibration), bundle.params, bundle.files
        )

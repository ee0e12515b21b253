"""The figure that a finished run is judged by."""

from dataclasses import replace

from innerloop_learner.bundle import load_bundle, save_bundle
from innerloop_learner.manifest import Metric
from innerloop_trainer.data import EpisodeShape
from innerloop_trainer.evaluation import evaluate
from innerloop_trainer.measuring import USUAL_TEST, tasks_to_measure
from innerloop_trainer.runs.room import saving
from innerloop_trainer.runs.training import Training


def measure_on_test_split(training: Training, shape: EpisodeShape, episodes: int | None) -> Metric:
    """Evaluate a run's best parameters on the test split, and record the figure in their bundle.

    Args:
        training: the finished run.
        shape: shape of the test episodes.
        episodes: number of test episodes; None for as many as outer steps, from 100 to 600.

    Returns:
        the figure as recorded.

    Raises:
        UnsavedError: there is no room for it.
    """
    folder, source, plan = training.folder, training.source, training.plan
    if episodes is None:
        episodes = tasks_to_measure(plan.config.method, plan.iterations, USUAL_TEST)
    bundle = load_bundle(folder.bundle, training.device)
    result = evaluate(
        bundle.learner,
        bundle.params,
        source.test,
        shape,
        split="test",
        episodes=episodes,
        seed=plan.config.seed,
    )
    tested = result.to_metric(source.name)
    # A finished run that is resumed is tested again, and the new figure replaces the old one.
    others = [metric for metric in bundle.manifest.metrics if metric.protocol != tested.protocol]
    manifest = replace(bundle.manifest, metrics=[*others, tested])
    with saving("the figure on the test split", folder.path):
        save_bundle(folder.bundle, manifest, bundle.params, bundle.files)
    return tested

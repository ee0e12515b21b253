"""One sitting of training, from what was asked for to a tested bundle."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from innerloop_learner.bundle import load_bundle, save_bundle
from innerloop_learner.host_memory import keep_freed_memory
from innerloop_learner.manifest import Metric
from innerloop_trainer.config import TrainingConfig, TrainingPlan, check_config, make_plan
from innerloop_trainer.data import DataSource, EpisodeShape, load_source
from innerloop_trainer.display import console, print_evaluation, print_start, progress_bar
from innerloop_trainer.evaluation import evaluate, metric_name
from innerloop_trainer.initial_parameters import read_initial_parameters, start_from
from innerloop_trainer.interrupts import interruptible
from innerloop_trainer.run_folder import RunFolder
from innerloop_trainer.seeds import generator_for
from innerloop_trainer.training import Training


@dataclass(frozen=True)
class Trained:
    """A run that is finished.

    Attributes:
        plan: it was trained by.
        source: it was trained on.
    """

    plan: TrainingPlan
    source: DataSource


def run_training(
    config: TrainingConfig,
    folder: RunFolder,
    device: torch.device,
    *,
    init: Path | None = None,
    resume: bool = False,
    test_episodes: int = 600,
) -> bool:
    """Train with a progress bar, then test on unseen classes and record the figure in the bundle.

    Args:
        config: what to train.
        folder: of the run.
        device: to train on.
        init: bundle, run or safetensors file to start from.
        resume: continue the run that the folder holds.
        test_episodes: tasks of the final test.

    Returns:
        whether training finished; Ctrl-C ends it early, with everything saved.

    Raises:
        as `train`.
    """
    trained = train(config, folder, device, init=init, resume=resume)
    if trained is None:
        return False
    print_evaluation(test(trained, folder, device, trained.plan.validation, test_episodes))
    console.print(f"Bundle: {folder.bundle}\nLearning curve: {folder.curve}", soft_wrap=True)
    return True


def train(
    config: TrainingConfig,
    folder: RunFolder,
    device: torch.device,
    *,
    init: Path | None = None,
    resume: bool = False,
    source: DataSource | None = None,
) -> Trained | None:
    """Train with a progress bar.

    Args:
        config: what to train.
        folder: of the run.
        device: to train on.
        init: bundle, run or safetensors file to start from.
        resume: continue the run that the folder holds.
        source: the data, if it was read already.

    Returns:
        the finished run; None if Ctrl-C ended it early, with everything saved.

    Raises:
        RunError, ConfigError, UnknownNameError, SettingsError, DataError, InitialParametersError, BundleError: what was
            asked for won't do; found before training begins, and where possible before the data is read, which may take
            a while.
        DivergedError: training came to nothing.
    """
    keep_freed_memory()
    folder.check(resume=resume)
    check_config(config)
    given = None if init is None else read_initial_parameters(init)
    if given is not None:
        config = replace(config, init=given.record)
    source = source or load_source(config.data, device)
    plan = make_plan(config, source)
    initial = plan.learner.init(generator_for(config.seed, "initialisation"))
    start = None if given is None else start_from(given, plan.learner, initial)
    training = Training(plan, source, folder, device, start.params if start else initial, resume=resume)
    console.print(f"{config.method} on {source.description}")
    if given is not None and start is not None and not resume:
        print_start(given, start)
    metric = metric_name(source.task_kind)
    bar = progress_bar(config.method, training.progress.iteration, plan.iterations, metric)
    with bar as report, interruptible() as interrupted:
        finished = training.run(report, interrupted)
    return Trained(plan, source) if finished else None


def test(trained: Trained, folder: RunFolder, device: torch.device, shape: EpisodeShape, episodes: int) -> Metric:
    """Evaluate the best parameters on the test split, and record the figure in their bundle.

    Args:
        trained: the run.
        folder: of the run.
        device: to test on.
        shape: of the test episodes.
        episodes: how many.
    """
    bundle = load_bundle(folder.bundle, device)
    source = trained.source
    result = evaluate(
        bundle.learner,
        bundle.params,
        source.test,
        shape,
        split="test",
        episodes=episodes,
        seed=trained.plan.config.seed,
    )
    tested = result.to_metric(source.name)
    # A finished run that is resumed is tested once more.
    others = [metric for metric in bundle.manifest.metrics if metric.protocol != tested.protocol]
    save_bundle(folder.bundle, replace(bundle.manifest, metrics=[*others, tested]), bundle.params, bundle.files)
    return tested

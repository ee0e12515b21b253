"""One sitting of training, from what was asked for to a tested bundle."""

from dataclasses import replace

import torch

from innerloop_learner.bundle import Metric, load_bundle, save_bundle
from innerloop_learner.host_memory import keep_freed_memory
from innerloop_trainer.config import TrainingConfig, TrainingPlan, check_config, make_plan
from innerloop_trainer.data import DataSource, load_source
from innerloop_trainer.display import console, print_evaluation, progress_bar
from innerloop_trainer.evaluation import evaluate, metric_name
from innerloop_trainer.interrupts import interruptible
from innerloop_trainer.run_folder import RunFolder
from innerloop_trainer.training import Training


def run_training(
    config: TrainingConfig,
    folder: RunFolder,
    device: torch.device,
    *,
    resume: bool = False,
    test_episodes: int = 600,
) -> bool:
    """Train with a progress bar, then test on unseen classes and record the figure in the bundle.

    Args:
        config: what to train.
        folder: of the run.
        device: to train on.
        resume: continue the run that the folder holds.
        test_episodes: tasks of the final test.

    Returns:
        whether training finished; Ctrl-C ends it early, with everything saved.

    Raises:
        RunError, ConfigError, UnknownNameError, SettingsError, DataError: what was asked for won't do; found before
            training begins, and where possible before the data is read, which may take a while.
        DivergedError: training came to nothing.
    """
    keep_freed_memory()
    folder.check(resume=resume)
    check_config(config)
    source = load_source(config.data, device)
    plan = make_plan(config, source)
    training = Training(plan, source, folder, device, resume=resume)
    console.print(f"{config.method} on {source.description}")
    metric = metric_name(source.task_kind)
    bar = progress_bar(config.method, training.progress.iteration, plan.iterations, metric)
    with bar as report, interruptible() as interrupted:
        if not training.run(report, interrupted):
            return False
    print_evaluation(_test(plan, source, folder, device, test_episodes))
    console.print(f"Bundle: {folder.bundle}\nLearning curve: {folder.curve}", soft_wrap=True)
    return True


def _test(plan: TrainingPlan, source: DataSource, folder: RunFolder, device: torch.device, episodes: int) -> Metric:
    """Evaluate the best parameters on the test split, and record the figure in their bundle."""
    bundle = load_bundle(folder.bundle, device)
    result = evaluate(
        bundle.learner,
        bundle.params,
        source.test,
        plan.validation,
        split="test",
        episodes=episodes,
        seed=plan.config.seed,
    )
    tested = result.to_metric(source.name)
    # A finished run that is resumed is tested once more.
    others = [metric for metric in bundle.manifest.metrics if metric.protocol != tested.protocol]
    save_bundle(folder.bundle, replace(bundle.manifest, metrics=[*others, tested]), bundle.params)
    return tested

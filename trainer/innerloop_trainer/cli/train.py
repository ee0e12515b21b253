"""`innerloop train`."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from innerloop_learner.manifest import Metric, read_manifest
from innerloop_trainer.calibration import CalibrationError
from innerloop_trainer.cli.arguments import DeviceOption
from innerloop_trainer.cli.display import (
    print_calibration,
    print_evaluation,
    print_left_out,
    print_notices,
    print_start,
    print_teachers,
)
from innerloop_trainer.cli.interrupts import INTERRUPTED, end_interrupted
from innerloop_trainer.cli.mistakes import mistakes_as_messages
from innerloop_trainer.cli.output import console, speaking
from innerloop_trainer.cli.progress import progress_on_stderr, run_with_progress
from innerloop_trainer.cli.recipe_options import RecipeOption, chosen_recipe, with_recipe_options
from innerloop_trainer.config import ConfigError
from innerloop_trainer.data import DataError, EpisodeShape
from innerloop_trainer.outer_loop import estimators
from innerloop_trainer.parallel import Launch, read_launch
from innerloop_trainer.recipes import Recipe, write_recipe
from innerloop_trainer.runs.calibration import calibrate_run
from innerloop_trainer.runs.checkpoints import KEPT
from innerloop_trainer.runs.conduct import SAVE_MINUTES, USUAL, Conduct
from innerloop_trainer.runs.final_test import measure_on_test_split
from innerloop_trainer.runs.folder import RunFolder
from innerloop_trainer.runs.from_recipe import prepare_recipe
from innerloop_trainer.runs.report import report_run
from innerloop_trainer.runs.room import saving
from innerloop_trainer.runs.training import Training
from innerloop_trainer.tracking import NO_TRACKING, Outcome, Tracking, make_tracking, trackers


@with_recipe_options
def train(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    recipe: RecipeOption = None,
    device: DeviceOption = "auto",
    save_every: Annotated[
        float, typer.Option(min=0, help="Minutes after which a run is saved, besides at validations and at its end.")
    ] = SAVE_MINUTES,
    keep_checkpoints: Annotated[int, typer.Option(min=1, help="Checkpoints to keep, the latest among them.")] = KEPT,
    workers: Annotated[
        str, typer.Option(help="Processes of one thread that divide tasks on a CPU; auto for them or threads by speed.")
    ] = "auto",
    replay: Annotated[
        bool, typer.Option("--replay/--no-replay", help="On a GPU, record outer steps and replay them as CUDA graphs.")
    ] = True,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run that the folder holds.")] = False,
    resume_if_any: Annotated[
        bool, typer.Option("--resume-if-any", help="Continue the run if the folder holds one, and start it if not.")
    ] = False,
    tracker: Annotated[
        list[str] | None, typer.Option(help=f"Tells of the run while it goes on: {' or '.join(trackers)}.")
    ] = None,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write a page on the model, report.html, at the end.")
    ] = True,
    **_: Any,
) -> None:
    """Meta-train a method and leave a bundle of the best validated parameters in OUT/bundle.

    Under torchrun, all processes train one run together.
    """
    launch, folder = read_launch(os.environ), RunFolder(out)
    with mistakes_as_messages():
        target = launch.device(device)
        with (
            launch.group(target) as group,
            speaking(leads=group.leads),
            progress_on_stderr(),
        ):
            # Whatever ended the processes before, torchrun gives them the same command again.
            resume = resume or ((resume_if_any or launch.restarts > 0) and folder.has_checkpoint)
            with group.together():
                conduct = Conduct(save_every, keep_checkpoints, group, read_workers(workers, launch), replay)
                chosen = chosen_recipe(context, recipe)
                estimator = chosen.training.estimator
                if estimator is not None and estimators[estimator].learns_architecture:
                    raise ConfigError(
                        f"{estimator} mixes networks that could be, and leaves none; run innerloop search {estimator}"
                    )
                heard_by = (tracker or ()) if group.leads else ()
                tracking = make_tracking(heard_by, lambda text: console.print(text, style="yellow", soft_wrap=True))
            finished = train_and_test(
                chosen, folder, target, resume=resume, conduct=conduct, tracking=tracking, report=report
            )
            if not finished:
                if group.size > 1:  # arguments do not tell what torchrun was called with
                    console.print("Stopped; everything is saved. Continue with the same command and --resume.")
                    raise typer.Exit(INTERRUPTED)
                end_interrupted(*([] if resume else ["--resume"]))


def read_workers(text: str, launch: Launch) -> int | None:
    """The number of workers that a user names; None for whichever is faster.

    Raises:
        ConfigError: it is no such number, or torchrun has started processes already.
    """
    if text == "auto":
        return 1 if launch.size > 1 else None
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"--workers is auto or a number from 1 on, not {text!r}")
    if launch.size > 1 and int(text) > 1:
        raise ConfigError("torchrun has started processes already; leave --workers out, or raise --nproc-per-node")
    return int(text)


def train_and_test(
    recipe: Recipe,
    folder: RunFolder,
    device: torch.device,
    *,
    resume: bool = False,
    conduct: Conduct = USUAL,
    tracking: Tracking = NO_TRACKING,
    report: bool = False,
) -> bool:
    """Train with a progress bar, test on unseen classes, and print where bundle and learning curve are.

    Args:
        recipe: recipe of the run, which is kept in its folder with all defaults filled in.
        folder: folder of the run.
        device: device to train on.
        resume: whether to continue the run that the folder holds.
        conduct: how the run is carried out.
        tracking: hears of the run.
        report: whether to write a page on the model at the end.

    Returns:
        whether training finished; Ctrl-C, SIGTERM and a lost terminal end it early, with everything saved.

    Raises:
        the errors of `prepare_recipe` and `Training.run`.
    """
    with conduct.group.together():
        prepared = prepare_recipe(recipe, folder, device, resume=resume, conduct=conduct)
    training, teachers = prepared.training, prepared.teachers
    console.print(f"{recipe.training.method} on {training.source.description}")
    print_notices(training.source)
    if prepared.start is not None and not resume:
        print_start(prepared.start)
    if teachers.bundles and not resume:
        print_teachers(teachers, recipe.training.teaching)
    if not resume:
        print_left_out(prepared.left_out)
    if conduct.group.leads:
        with saving("the recipe", folder.path, then="give the same command again"):
            write_recipe(folder.recipe, prepared.recipe, Path.cwd())
    with tracking.run(folder, prepared.recipe) as heard:
        if not run_with_progress(training, heard.log):
            heard.outcome = Outcome("stopped")
            return False
        if not conduct.group.leads:
            return True
        shape = replace(training.plan.validation, wrong_labels=0.0)
        tested = measure_on_test_split(training, shape, recipe.test_episodes)
        print_evaluation(tested)
        if recipe.calibration_episodes != 0:
            _calibrate(training, recipe.calibration_episodes)
        if report:
            _report(training, tested, shape)
        heard.outcome = Outcome("finished", tested, folder.bundle, read_manifest(folder.bundle).digest)
    console.print(f"Bundle: {folder.bundle}\nLearning curve: {folder.curve}", soft_wrap=True)
    return True


def _calibrate(training: Training, episodes: int | None) -> None:
    """Calibrate the bundle of a finished run, or say why it stays as it is: the run is good without."""
    try:
        print_calibration(calibrate_run(training, episodes))
    except CalibrationError as error:
        console.print(f"not calibrated: {error}", style="yellow", soft_wrap=True)


def _report(training: Training, tested: Metric, shape: EpisodeShape) -> None:
    """Write the page on a finished run, or say why there is none: the run is good without."""
    try:
        report_run(training, tested, shape)
    except (DataError, OSError) as error:
        console.print(f"no report: {error}", style="yellow", soft_wrap=True)
    else:
        console.print(f"Report: {training.folder.report}", soft_wrap=True)

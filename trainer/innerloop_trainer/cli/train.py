"""`innerloop train`."""

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from innerloop_learner.spec import ClassBalance
from innerloop_trainer.calibration import CalibrationError
from innerloop_trainer.cli.arguments import (
    MEASURING,
    TRAINING,
    BackboneSettingsOption,
    DataOption,
    DeviceOption,
    EncoderOption,
    PolicySettingsOption,
    TeacherOption,
    TokenizerOption,
    option,
    parse_settings,
)
from innerloop_trainer.cli.display import (
    print_calibration,
    print_evaluation,
    print_left_out,
    print_notices,
    print_start,
    print_teachers,
)
from innerloop_trainer.cli.interrupts import INTERRUPTED
from innerloop_trainer.cli.mistakes import mistakes_as_messages
from innerloop_trainer.cli.output import console
from innerloop_trainer.cli.progress import progress_of_reading, run_with_progress
from innerloop_trainer.config import ConfigError, TrainingConfig
from innerloop_trainer.devices import choose_device
from innerloop_trainer.encoders import EncoderFiles, read_optional_encoder
from innerloop_trainer.outer_loop import Schedule, estimators
from innerloop_trainer.runs.calibration import calibrate_run
from innerloop_trainer.runs.final_test import measure_on_test_split
from innerloop_trainer.runs.folder import RunFolder
from innerloop_trainer.runs.prepare import prepare
from innerloop_trainer.runs.teachers import read_teachers
from innerloop_trainer.runs.training import SAVE_MINUTES, Training
from innerloop_trainer.teaching import NO_TEACHERS, Teachers

CALIBRATION_EPISODES = 200
"""Tasks of each size that a run is calibrated with, unless it is told otherwise."""


def train(
    method: Annotated[str, typer.Argument(help="A name that `innerloop methods` lists.")],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    ways: Annotated[int, option("ways")] = TrainingConfig.ways,
    shots: Annotated[int, option("shots")] = TrainingConfig.shots,
    queries: Annotated[int | None, option("queries")] = TrainingConfig.queries,
    steps: Annotated[int | None, option("steps")] = TrainingConfig.steps,
    train_ways: Annotated[int | None, option("train_ways")] = TrainingConfig.train_ways,
    max_ways: Annotated[int | None, option("max_ways")] = TrainingConfig.max_ways,
    iterations: Annotated[int | None, option("iterations")] = TrainingConfig.iterations,
    meta_batch: Annotated[int | None, option("meta_batch")] = TrainingConfig.meta_batch,
    learning_rate: Annotated[float | None, option("learning_rate")] = TrainingConfig.learning_rate,
    schedule: Annotated[Schedule, option("schedule")] = TrainingConfig.schedule,
    estimator: Annotated[str | None, option("estimator")] = TrainingConfig.estimator,
    seed: Annotated[int, option("seed")] = TrainingConfig.seed,
    validate_every: Annotated[int, option("validate_every")] = TrainingConfig.validate_every,
    validation_episodes: Annotated[int, option("validation_episodes")] = TrainingConfig.validation_episodes,
    test_episodes: Annotated[
        int, typer.Option(min=2, help="Tasks of the final test on unseen classes.", rich_help_panel=MEASURING)
    ] = 600,
    calibration_episodes: Annotated[
        int,
        typer.Option(
            min=0,
            help="Tasks of each size to calibrate answers with at the end; 0 for not at all.",
            rich_help_panel=MEASURING,
        ),
    ] = CALIBRATION_EPISODES,
    backbone: Annotated[str | None, option("backbone")] = TrainingConfig.backbone,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Setting of the method or its training, NAME=VALUE.", rich_help_panel=TRAINING),
    ] = None,
    backbone_settings: BackboneSettingsOption = None,
    class_balance: Annotated[ClassBalance, option("class_balance")] = TrainingConfig.class_balance,
    weighting: Annotated[str, option("weighting")] = TrainingConfig.weighting,
    support_policy: Annotated[str, option("support_policy")] = TrainingConfig.support_policy,
    policy_settings: PolicySettingsOption = None,
    wrong_labels: Annotated[float, option("wrong_labels")] = TrainingConfig.wrong_labels,
    unlabelled: Annotated[bool | None, option("unlabelled")] = TrainingConfig.unlabelled,
    augment: Annotated[str | None, option("augment")] = TrainingConfig.augment,
    teacher: TeacherOption = None,
    teaching: Annotated[str, option("teaching")] = TrainingConfig.teaching,
    transform: Annotated[str | None, option("transform")] = TrainingConfig.transform,
    encoder: EncoderOption = None,
    tokenizer: TokenizerOption = None,
    init: Annotated[
        Path | None,
        typer.Option(help="Bundle, run or safetensors file whose parameters to start from.", rich_help_panel=TRAINING),
    ] = None,
    device: DeviceOption = "auto",
    save_every: Annotated[
        float, typer.Option(min=0, help="Minutes after which a run is saved, besides at validations and at its end.")
    ] = SAVE_MINUTES,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run that the folder holds.")] = False,
) -> None:
    """Meta-train a method and leave a bundle of the best validated parameters in OUT/bundle."""
    with mistakes_as_messages(), progress_of_reading():
        config = TrainingConfig(
            method=method,
            data=data,
            ways=ways,
            shots=shots,
            train_ways=train_ways,
            max_ways=max_ways,
            queries=queries,
            steps=steps,
            iterations=iterations,
            meta_batch=meta_batch,
            learning_rate=learning_rate,
            schedule=schedule,
            estimator=estimator,
            seed=seed,
            validate_every=validate_every,
            validation_episodes=validation_episodes,
            settings=parse_settings(settings),
            backbone=backbone,
            backbone_settings=parse_settings(backbone_settings),
            class_balance=class_balance,
            weighting=weighting,
            support_policy=support_policy,
            policy_settings=parse_settings(policy_settings),
            wrong_labels=wrong_labels,
            unlabelled=unlabelled,
            augment=augment,
            teaching=teaching,
            transform=transform,
        )
        if estimator is not None and estimators[estimator].learns_architecture:
            raise ConfigError(
                f"{estimator} mixes networks that could be, and leaves none; run innerloop search {estimator}"
            )
        target = choose_device(device)
        finished = train_and_test(
            config,
            RunFolder(out),
            target,
            encoder=read_optional_encoder(encoder, tokenizer),
            init=init,
            teachers=read_teachers(teacher or (), target),
            resume=resume,
            test_episodes=test_episodes,
            calibration_episodes=calibration_episodes,
            save_minutes=save_every,
        )
    if not finished:
        command = shlex.join(["innerloop", *sys.argv[1:], *([] if resume else ["--resume"])])
        console.print(f"Stopped; everything is saved. Continue with:\n  {command}", soft_wrap=True)
        raise typer.Exit(INTERRUPTED)


def train_and_test(
    config: TrainingConfig,
    folder: RunFolder,
    device: torch.device,
    *,
    encoder: EncoderFiles | None = None,
    init: Path | None = None,
    teachers: Teachers = NO_TEACHERS,
    resume: bool = False,
    test_episodes: int = 600,
    calibration_episodes: int = CALIBRATION_EPISODES,
    save_minutes: float = SAVE_MINUTES,
) -> bool:
    """Train with a progress bar, test on unseen classes, and print where bundle and learning curve are.

    Args:
        config: configuration of the run.
        folder: folder of the run.
        device: device to train on.
        encoder: encoder whose features to learn from, if there is one.
        init: bundle, run or safetensors file whose parameters to start from.
        teachers: models that teach, on that device.
        resume: whether to continue the run that the folder holds.
        test_episodes: tasks of the final test.
        calibration_episodes: tasks of each size that answers are calibrated with; 0 for not at all.
        save_minutes: minutes after which the run is saved, besides at validations and at its end.

    Returns:
        whether training finished; Ctrl-C, SIGTERM and a lost terminal end it early, with everything saved.

    Raises:
        the errors of `prepare` and `Training.run`.
    """
    prepared = prepare(
        config,
        folder,
        device,
        encoder=encoder,
        init=init,
        teachers=teachers,
        resume=resume,
        save_minutes=save_minutes,
    )
    training = prepared.training
    console.print(f"{config.method} on {training.source.description}")
    print_notices(training.source)
    if prepared.start is not None and not resume:
        print_start(prepared.start)
    if teachers.bundles and not resume:
        print_teachers(teachers, config.teaching)
    if not resume:
        print_left_out(prepared.left_out)
    if not run_with_progress(training):
        return False
    shape = replace(training.plan.validation, wrong_labels=0.0)
    print_evaluation(measure_on_test_split(training, shape, test_episodes))
    if calibration_episodes:
        _calibrate(training, calibration_episodes)
    console.print(f"Bundle: {folder.bundle}\nLearning curve: {folder.curve}", soft_wrap=True)
    return True


def _calibrate(training: Training, episodes: int) -> None:
    """Calibrate the bundle of a finished run, or say why it stays as it is: the run is good without."""
    try:
        print_calibration(calibrate_run(training, episodes))
    except CalibrationError as error:
        console.print(f"not calibrated: {error}", style="yellow", soft_wrap=True)

"""`innerloop compare`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markdown import Markdown

from innerloop_learner.learner import methods as registered_methods
from innerloop_learner.spec import ClassBalance
from innerloop_trainer.cli.arguments import (
    MEASURING,
    MODEL,
    TASKS,
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
from innerloop_trainer.cli.display import print_notices
from innerloop_trainer.cli.interrupts import end_interrupted
from innerloop_trainer.cli.mistakes import mistakes_as_messages
from innerloop_trainer.cli.output import console
from innerloop_trainer.cli.progress import progress_on_stderr, run_with_progress
from innerloop_trainer.comparison import Budget, compare_methods
from innerloop_trainer.config import ConfigError, TrainingConfig
from innerloop_trainer.devices import choose_device
from innerloop_trainer.encoders import load_encoded, read_optional_encoder
from innerloop_trainer.runs.teachers import read_teachers


def compare(
    methods: Annotated[str, typer.Option(help="Names of methods (see `innerloop methods`), separated by commas.")],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Folder to write the comparison and its runs to.")],
    ways: Annotated[int, option("ways")] = TrainingConfig.ways,
    shots: Annotated[int, option("shots")] = TrainingConfig.shots,
    queries: Annotated[
        int, typer.Option(min=1, help="Queries per class in test episodes.", rich_help_panel=TASKS)
    ] = 15,
    minutes: Annotated[
        float | None, typer.Option(help="Training time of each method, in minutes.", rich_help_panel=TRAINING)
    ] = None,
    iterations: Annotated[
        int | None,
        typer.Option(min=1, help="Outer steps of each method, instead of --minutes.", rich_help_panel=TRAINING),
    ] = None,
    estimator: Annotated[str | None, option("estimator")] = TrainingConfig.estimator,
    seed: Annotated[int, option("seed")] = TrainingConfig.seed,
    test_episodes: Annotated[
        int, typer.Option(min=2, help="Test tasks, the same for all methods.", rich_help_panel=MEASURING)
    ] = 600,
    backbone: Annotated[
        str | None, typer.Option(help="Feature extractor of all methods.", rich_help_panel=MODEL)
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Setting of one method, METHOD.NAME=VALUE.", rich_help_panel=TRAINING),
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
    device: DeviceOption = "auto",
) -> None:
    """Train methods on one budget, measure them on the same tasks, and write a table and a plot."""
    with mistakes_as_messages(), progress_on_stderr():
        if (minutes is None) == (iterations is None):
            raise ConfigError("name one budget, --minutes or --iterations")
        if minutes is not None and not 0 < minutes < float("inf"):
            raise ConfigError(f"--minutes must be a positive number, not {minutes}")
        names = [name.strip() for name in methods.split(",") if name.strip()]
        if not names:
            raise ConfigError("--methods names no method; `innerloop methods` lists them")
        common = TrainingConfig(
            method=names[0],
            data=data,
            ways=ways,
            shots=shots,
            estimator=estimator,
            seed=seed,
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
        budget = Budget(iterations, minutes)
        target = choose_device(device)
        source = load_encoded(data, target, read_optional_encoder(encoder, tokenizer))
        print_notices(source)
        result = compare_methods(
            list(dict.fromkeys(names)),
            common,
            source,
            _by_method(settings, names),
            budget,
            out,
            target,
            queries,
            test_episodes,
            run_with_progress,
            lambda notice: console.print(notice, soft_wrap=True),
            read_teachers(teacher or (), target),
        )
        if result is not None:
            result.save(out)
    if result is None:
        end_interrupted()
    console.print(Markdown(result.to_markdown()))
    console.print(f"Written to {out}: comparison.md, comparison.json, comparison.png", soft_wrap=True)


def _by_method(texts: list[str] | None, names: list[str]) -> dict[str, dict[str, Any]]:
    """Turn METHOD.NAME=VALUE texts into settings by method."""
    by_method: dict[str, dict[str, Any]] = {}
    for key, value in parse_settings(texts).items():
        method, dot, name = key.partition(".")
        if not dot:
            raise ConfigError(f"settings are written METHOD.NAME=VALUE here, not {key!r}")
        if method not in names:
            registered_methods[method]
            raise ConfigError(f"--set {key} is of a method that --methods does not name; add it or leave that out")
        by_method.setdefault(method, {})[name] = value
    return by_method

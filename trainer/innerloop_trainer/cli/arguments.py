"""Options that several commands share, and the conversion of what a user types to the trainer's types."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from innerloop_learner.settings import declared
from innerloop_trainer.config import ConfigError, TrainingConfig
from innerloop_trainer.recipes import Recipe

TASKS, MODEL, TRAINING, MEASURING = "Tasks", "What is trained", "How it is trained", "What is measured"
"""Groups of the options of a run in the help of a command."""

GROUPS = {
    TASKS: ("ways", "shots", "queries", "train_ways", "wrong_labels", "unlabelled"),
    MODEL: (
        *("steps", "max_ways", "backbone", "backbone_set", "class_balance", "weighting", "support_policy"),
        *("policy_set", "encoder", "tokenizer"),
    ),
    TRAINING: (
        *("iterations", "meta_batch", "learning_rate", "weight_decay", "schedule", "estimator", "precision"),
        *("recompute", "set"),
        *("augment", "mix_tasks", "transform", "teacher", "teaching", "init", "seed"),
    ),
    MEASURING: ("validate_every", "validation_episodes", "test_episodes", "calibration_episodes"),
}
"""Settings of a recipe by the group of their options, in the order of help."""

TABLES = {
    "set": "setting of the method or its training, NAME=VALUE",
    "backbone_set": "setting of the backbone, NAME=VALUE",
    "policy_set": "setting of the support policy, NAME=VALUE",
}
"""Settings of a recipe that hold others by name, and what one of these is."""


def option(name: str) -> Any:
    """The command-line option of a setting of a recipe, with the help text and the limits declared there.

    Help shows it among those of its group.
    """
    [group] = [group for group, names in GROUPS.items() if name in names]
    if name in TABLES:
        return typer.Option(f"--{name.replace('_', '-')}", help=_sentence(TABLES[name]), rich_help_panel=group)
    field = declared(TrainingConfig, name) or declared(Recipe, name)
    text = _sentence(field["doc"])
    return typer.Option(min=field["least"], max=field["most"], help=text, rich_help_panel=group)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


DATA = typer.Option("--data", help="Data source, for example omniglot:PATH or glyphs.")
DataOption = Annotated[str, DATA]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
BundleArgument = Annotated[Path, typer.Argument(help="A bundle, or the folder of a run.")]
EncoderOption = Annotated[str | None, option("encoder")]
EncoderArgument = Annotated[str, typer.Option("--encoder", help=_sentence(declared(Recipe, "encoder")["doc"]))]
TokenizerOption = Annotated[
    Path | None, typer.Option("--tokenizer", help=_sentence(declared(Recipe, "tokenizer")["doc"]))
]
TeacherOption = Annotated[list[Path] | None, option("teacher")]
BackboneSettingsOption = Annotated[list[str] | None, option("backbone_set")]
PolicySettingsOption = Annotated[list[str] | None, option("policy_set")]
SignKeyOption = Annotated[
    Path | None,
    typer.Option("--sign-key", help="File of a private key that signs the bundle (`innerloop signing-key`)."),
]


def parse_settings(texts: Sequence[str] | None) -> dict[str, Any]:
    """Read NAME=VALUE texts into a mapping. A value is read as JSON if it is valid JSON, and otherwise taken as text.

    Raises:
        ConfigError: a text has another form, or a name comes twice.
    """
    settings: dict[str, Any] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ConfigError(f"settings are written NAME=VALUE, not {text!r}")
        if name in settings:
            raise ConfigError(f"{name} is set twice; leave one out")
        try:
            settings[name] = json.loads(value)
        except json.JSONDecodeError:
            settings[name] = value
    return settings

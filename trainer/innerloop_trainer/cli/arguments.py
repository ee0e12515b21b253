"""Options that several commands share, and the conversion of what a user types to the trainer's types."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from innerloop_learner.settings import declared
from innerloop_trainer.config import ConfigError, TrainingConfig

TASKS, MODEL, TRAINING, MEASURING = "Tasks", "What is trained", "How it is trained", "What is measured"
"""Groups of the options of a run in the help of a command."""

_GROUPS = {
    TASKS: ("ways", "shots", "queries", "train_ways", "wrong_labels", "unlabelled"),
    MODEL: ("steps", "max_ways", "backbone", "class_balance", "weighting", "support_policy"),
    TRAINING: (
        *("iterations", "meta_batch", "learning_rate", "schedule", "estimator"),
        *("augment", "transform", "teaching", "seed"),
    ),
    MEASURING: ("validate_every", "validation_episodes"),
}
"""Fields of `TrainingConfig` by the group of their options."""

DataOption = Annotated[str, typer.Option("--data", help="Data source, for example omniglot:PATH or glyphs.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
BundleArgument = Annotated[Path, typer.Argument(help="A bundle, or the folder of a run.")]
_ENCODER = (
    "Frozen encoder in front: a name that `innerloop encoders` lists, an ONNX file, or hf:OWNER/REPO, with options "
    "behind it as ?key=value."
)
EncoderOption = Annotated[str | None, typer.Option("--encoder", help=_ENCODER, rich_help_panel=MODEL)]
EncoderArgument = Annotated[str, typer.Option("--encoder", help=_ENCODER)]
TokenizerOption = Annotated[
    Path | None, typer.Option("--tokenizer", help="The tokenizer.json of an ONNX file that takes texts.")
]
TeacherOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--teacher", help="Bundle or run whose answers to learn from; several are averaged.", rich_help_panel=TRAINING
    ),
]
BackboneSettingsOption = Annotated[
    list[str] | None,
    typer.Option("--backbone-set", help="Setting of the backbone, NAME=VALUE.", rich_help_panel=MODEL),
]
PolicySettingsOption = Annotated[
    list[str] | None,
    typer.Option("--policy-set", help="Setting of the support policy, NAME=VALUE.", rich_help_panel=MODEL),
]
SignKeyOption = Annotated[
    Path | None,
    typer.Option("--sign-key", help="File of a private key that signs the bundle (`innerloop signing-key`)."),
]


def option(name: str) -> Any:
    """The command-line option of a field of `TrainingConfig`, with the help text and the limits declared there.

    Help shows it among those of its group.
    """
    field = declared(TrainingConfig, name)
    doc = field["doc"]
    [group] = [group for group, names in _GROUPS.items() if name in names]
    text = f"{doc[0].upper()}{doc[1:]}."
    return typer.Option(min=field["least"], max=field["most"], help=text, rich_help_panel=group)


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

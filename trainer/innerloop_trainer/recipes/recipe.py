"""The recipe of a training run as typed data."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from innerloop_learner.settings import setting, with_settings
from innerloop_trainer.config import ConfigError, TrainingConfig

TABLES = {"set": "settings", "backbone_set": "backbone_settings", "policy_set": "policy_settings"}
"""Names of a recipe's tables, and the fields of the configuration that they fill."""

_DIGESTS = ("init", "teacher", "encoder")
"""Fields of the configuration that record the content of files, which a recipe names by their paths."""


@dataclass(frozen=True)
class Recipe:
    """All that the result of a training run depends on, apart from the machine.

    Attributes:
        training: configuration of the run, without digests of files.

    The text in the declaration of each other field says what it is; `innerloop train --help` shows these texts.
    """

    training: TrainingConfig
    teacher: Sequence[str] = setting((), "bundle or run whose answers to learn from; several are averaged")
    init: str | None = setting(None, "bundle, run or safetensors file whose parameters to start from")
    encoder: str | None = setting(
        None,
        "frozen encoder in front: a name that `innerloop encoders` lists, an ONNX file, or hf:OWNER/REPO, with options "
        "behind it as ?key=value",
    )
    tokenizer: str | None = setting(None, "the tokenizer.json of an ONNX file that takes texts")
    test_episodes: int | None = setting(
        None,
        "tasks of the final test on unseen classes; usually 600, and after fewer outer steps as many, but at least 100",
        least=2,
    )
    calibration_episodes: int | None = setting(
        None,
        "tasks of each size to calibrate answers with at the end, 0 for not at all; usually as many as outer steps, "
        "from 100 to 1,000",
        least=0,
    )

    def to_settings(self) -> dict[str, Any]:
        """Settings by name, as `make_recipe` takes them; what is unset is left out."""
        config = self.training.to_json()
        own = {each.name: getattr(self, each.name) for each in _own_fields()}
        tables = {name: config[field] for name, field in TABLES.items()}
        plain = {name: value for name, value in config.items() if name not in (*TABLES.values(), *_DIGESTS)}
        kept = {name: value for name, value in {**plain, **own}.items() if value is not None and value != ()}
        return {**kept, **{name: table for name, table in tables.items() if table}}


def make_recipe(settings: Mapping[str, Any]) -> Recipe:
    """Make a recipe from settings by name; those that are not given get their defaults.

        >>> make_recipe({"method": "maml", "data": "digits", "set": {"rate": 0.1}}).training.settings
        {'rate': 0.1}
        >>> make_recipe({"method": "maml", "data": "digits", "learning-rate": 0.1})
        Traceback (most recent call last):
            ...
        innerloop_trainer.config.ConfigError: a recipe has no setting 'learning-rate'; did you mean learning_rate?

    Raises:
        ConfigError: there is no setting of this name, or method or data are missing.
        SettingsError: a value has another type, or is out of range.
    """
    check_names(settings, setting_names(), "a recipe")
    for name, example in (("method", "innerloop train METHOD"), ("data", "--data SOURCE")):
        if name not in settings:
            raise ConfigError(f"no {name} is named; name it with {example}, or in a recipe")
    own = {each.name for each in _own_fields()}
    of_training = {TABLES.get(name, name): value for name, value in settings.items() if name not in own}
    training = with_settings("recipe", TrainingConfig, of_training)
    return with_settings("recipe", Recipe, {name: value for name, value in settings.items() if name in own}, training)


def setting_names() -> list[str]:
    """Names of all settings of a recipe."""
    of_training = [each.name for each in fields(TrainingConfig) if each.name not in (*TABLES.values(), *_DIGESTS)]
    return [*of_training, *TABLES, *(each.name for each in _own_fields())]


def check_names(names: Iterable[str], known: Sequence[str], owner: str) -> None:
    """Refuse names that are not known, and suggest the nearest one that is.

    Raises:
        ConfigError: a name is not known.
    """
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.5)
            hint = f"did you mean {near[0]}?" if near else f"it has: {', '.join(known)}"
            raise ConfigError(f"{owner} has no setting {name!r}; {hint}")


def _own_fields() -> list[Any]:
    return [each for each in fields(Recipe) if each.name != "training"]

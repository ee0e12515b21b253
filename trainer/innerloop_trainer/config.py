"""The configuration of a training run."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from innerloop_learner.backbones import backbones
from innerloop_learner.learner import methods
from innerloop_learner.settings import StepSettings, declared, setting
from innerloop_learner.spec import ClassBalance
from innerloop_learner.transformations import transformations
from innerloop_trainer.data import EpisodeShape, read_augmentations
from innerloop_trainer.outer_loop import Schedule, estimators
from innerloop_trainer.relative_paths import same_source
from innerloop_trainer.teaching import teachings

_SETTINGS = {"settings": "set", "backbone_settings": "backbone-set", "policy_settings": "policy-set"}
"""Fields of the configuration that hold settings by name, and the command-line options that fill them."""

Precision = Literal["float32", "tf32", "bfloat16"]
"""Precision of outer steps: of all their products, or with bfloat16 of the backbone; others are computed in float32."""


class ConfigError(ValueError):
    """Settings that contradict each other, the method or this machine; the message says what to change."""


@dataclass(frozen=True)
class TrainingConfig:
    """The configuration of a training run as plain data. Fields that are None get the method's defaults.

    Attributes:
        method: registered name of the method.
        data: the data source as the user wrote it.
        settings: settings of the method (except steps), of its objective, of the estimator, of the transformation and
            of distillation, by name.
        backbone_settings: settings of the backbone, by name.
        policy_settings: settings of the support policy, by name.
        init: SHA-256 of the parameters that training starts from; None if it starts from random ones.
        teacher: SHA-256 of the bundles that teach, joined by commas; None without teachers.
        encoder: SHA-256 of the frozen encoder whose features are the inputs; None without an encoder.

    The text in the declaration of each other field says what it is; `innerloop train --help` shows these texts.
    """

    method: str
    data: str
    ways: int = setting(5, "classes per task", least=2)
    shots: int = setting(1, "support examples per class", least=1)
    train_ways: int | None = setting(None, "classes per training episode, if not as many as --ways", least=2)
    max_ways: int | None = setting(
        None, "most classes that a request may have, for methods that take any number", least=2
    )
    queries: int | None = setting(None, "queries per class in training and validation", least=1)
    steps: int | None = setting(None, "inner steps, for methods that have them", least=1)
    iterations: int | None = setting(None, "outer steps", least=1)
    meta_batch: int | None = setting(None, "tasks per outer step", least=1)
    learning_rate: float | None = setting(None, "learning rate of Adam, the outer optimizer, at the start")
    weight_decay: float = setting(
        0.0,
        "weight decay: a step shrinks convolutions and matrices of the backbone by this times the outer learning rate, "
        "as in AdamW",
        least=0.0,
    )
    schedule: Schedule = setting("cosine", "course of the outer learning rate: down to 0 along a cosine, or constant")
    precision: Precision = setting(
        "float32",
        "precision of outer steps: float32; bfloat16 in the backbone, which some processors do faster; tf32 on GPUs",
    )
    recompute: bool = setting(
        False,
        "compute the activations of inner steps again instead of keeping them: with ten steps or more, about half the "
        "memory on a CPU, for up to half more time",
    )
    seed: int = setting(0, "seed of the initial parameters and of the episodes")
    validate_every: int = setting(250, "outer steps between validations", least=1)
    validation_episodes: int | None = setting(
        None, "tasks per validation; usually 200, and in runs of fewer outer steps as many, but at least 100", least=2
    )
    estimator: str | None = setting(
        None,
        "way to find parameters: backpropagation, mldg, pilot, implicit, reptile, es, pes, reinforce, discriminant, "
        "nothing",
    )
    settings: Mapping[str, Any] = field(default_factory=dict)
    backbone: str | None = setting(
        None, "network that turns inputs into features: conv4, resnet12, resnet18, vit, cell, mlp or adapter"
    )
    backbone_settings: Mapping[str, Any] = field(default_factory=dict)
    class_balance: ClassBalance = setting(
        "equal", "weight of a class when adapting: equal for all classes, or proportional to its number of examples"
    )
    weighting: str = setting(
        "none", "what tells examples of a class from each other when adapting, in case labels are wrong: leave_one_out"
    )
    wrong_labels: float = setting(
        0.0, "largest share of wrong labels in support sets of training and validation", least=0.0, most=0.5
    )
    support_policy: str = setting(
        "none",
        "what adds augmented copies to support sets, at serving too: learned (strengths are meta-learned), fixed",
    )
    policy_settings: Mapping[str, Any] = field(default_factory=dict)
    unlabelled: bool | None = setting(
        None, "learn from images without labels: each is a class of its own, and its queries are augmentations of it"
    )
    augment: str | None = setting(
        None,
        "augmentations of training images, as NAME?strength=number joined by commas, or none; usual ones are chosen "
        "only without labels",
    )
    mix_tasks: float = setting(
        0.0, "share of training tasks that are mixed with others, class by class (MLTI)", least=0.0, most=1.0
    )
    transform: str | None = setting(
        None, "random transformation of features in training, against new domains: feature_wise"
    )
    teaching: str = setting(
        "plain", "what of the teachers is learned too: plain for nothing, their temperature, or the head of each"
    )
    init: str | None = None
    teacher: str | None = None
    encoder: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def check_config(config: TrainingConfig) -> None:
    """Find mistakes that show without the data, which may take a while to read.

        >>> check_config(TrainingConfig("protonet", "glyphs", steps=3))
        Traceback (most recent call last):
            ...
        innerloop_trainer.config.ConfigError: protonet has no inner steps; leave --steps out

    Raises:
        ConfigError: settings that contradict each other or the method.
        DataError: no such augmentation or strength.
        UnknownNameError: no such method, backbone, estimator, weighting, support policy, transformation or teaching.
        SettingsError: the method can't learn weights of examples, or takes no support policy.
    """
    method = methods[config.method]
    if config.backbone is not None:
        backbones[config.backbone]
    if config.estimator is not None:
        estimators[config.estimator]
    if config.transform is not None:
        transformations[config.transform]
    teachings[config.teaching]
    method.check_weighting(config.weighting)
    method.check_support_policy(config.support_policy)
    if config.augment is not None:
        read_augmentations(config.augment)
    _check_values(config)
    if config.steps is not None and not issubclass(method.settings_class, StepSettings):
        raise ConfigError(f"{config.method} has no inner steps; leave --steps out")
    if config.steps is not None and config.settings.get("steps", config.steps) != config.steps:
        raise ConfigError(f"--steps is {config.steps}, but --set steps is {config.settings['steps']}; leave one out")
    if config.train_ways not in (None, config.ways) and method.info.ways_can_change != "any":
        raise ConfigError(f"{config.method} trains on as many ways as it serves; leave --train-ways out")
    if config.teaching != "plain" and config.teacher is None:
        raise ConfigError(f"--teaching {config.teaching} changes teachers; name one with --teacher")
    if config.max_ways is not None and method.info.ways_can_change != "any":
        raise ConfigError(f"{config.method} serves as many ways as it trains on; leave --max-ways out")
    if config.max_ways is not None and config.max_ways < config.ways:
        raise ConfigError(f"--max-ways {config.max_ways} is less than --ways {config.ways}; raise it")
    if config.wrong_labels and not EpisodeShape(config.ways, config.shots, 1, config.wrong_labels).most_wrong:
        raise ConfigError(
            f"--wrong-labels {config.wrong_labels} of --shots {config.shots} is less than one example; raise --shots"
        )


def _check_values(config: TrainingConfig) -> None:
    """Check each field by itself."""
    for name, value in vars(config).items():
        limits = declared(TrainingConfig, name)
        least, most = limits.get("least"), limits.get("most")
        if least is not None and value is not None and not value >= least:
            raise ConfigError(f"{_option(name)} must be at least {least}, not {value}")
        if most is not None and value is not None and not value <= most:
            raise ConfigError(f"{_option(name)} must be at most {most}, not {value}")
    if config.learning_rate is not None and not 0 < config.learning_rate < math.inf:
        raise ConfigError(f"--learning-rate must be a positive number, not {config.learning_rate}")
    chosen = {"schedule": Schedule, "class_balance": ClassBalance, "precision": Precision}
    for name, choices in ((name, get_args(kind)) for name, kind in chosen.items()):
        if getattr(config, name) not in choices:
            raise ConfigError(f"{_option(name)} must be one of {', '.join(choices)}, not {getattr(config, name)}")


def differences(theirs: TrainingConfig, ours: TrainingConfig) -> list[str]:
    """How two configurations differ, one text for each field, or for each of its settings.

    >>> differences(TrainingConfig("maml", "glyphs"), TrainingConfig("maml", "glyphs", settings={"rate": 0.1}))
    ['--set rate is unset there, 0.1 here']
    """
    if same_source(theirs.data, ours.data):
        theirs = replace(theirs, data=ours.data)  # a recipe may name by an absolute path what a user named otherwise
    a, b = _flat(theirs), _flat(ours)
    changed = [name for name in a | b if a.get(name) != b.get(name)]
    return [f"{name} is {_shown(a.get(name))} there, {_shown(b.get(name))} here" for name in changed]


def _flat(config: TrainingConfig) -> dict[str, Any]:
    """Options as a user writes them, and their values."""
    flat: dict[str, Any] = {}
    for name, value in config.to_json().items():
        option = _option(name)
        flat |= {f"{option} {key}": entry for key, entry in value.items()} if name in _SETTINGS else {option: value}
    return flat


def _shown(value: Any) -> Any:
    return "unset" if value is None else value


def _option(name: str) -> str:
    return f"--{_SETTINGS.get(name, name).replace('_', '-')}"

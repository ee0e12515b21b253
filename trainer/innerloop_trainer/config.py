"""What a training run was asked to do."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar, get_args

import torch

from innerloop_learner.backbones import backbones
from innerloop_learner.learner import Learner, MethodInfo, build_learner, methods
from innerloop_learner.manifest import TaskLimits
from innerloop_learner.objectives import build_objective, objectives
from innerloop_learner.settings import SettingsError, StepSettings, described
from innerloop_learner.spec import ClassBalance, InputSpec, LearnerSpec
from innerloop_learner.tasks import Params
from innerloop_trainer.data import DataSource, EpisodeShape
from innerloop_trainer.outer_loop import (
    Estimator,
    OptimizerPlan,
    Schedule,
    TrainingDefaults,
    build_estimator,
    defaults_of,
    estimators,
)

SERVING_WAYS = 64
"""Most classes a request may have where the method itself sets no limit."""


_COUNTS = ("ways", "shots", "train_ways", "queries", "steps", "iterations", "meta_batch", "validate_every")
_SETTINGS = {"settings": "set", "backbone_settings": "backbone-set"}
"""Fields that hold settings, and what their options are called."""

T = TypeVar("T")


class ConfigError(ValueError):
    """Settings that contradict each other or the method."""


@dataclass(frozen=True)
class TrainingConfig:
    """A training run as plain data; fields left None take the method's defaults.

    Attributes:
        method: registered name.
        data: the source as the user wrote it.
        ways, shots: the tasks to train for.
        train_ways: classes per training episode, where that differs from `ways`.
        queries: queries per class.
        steps: inner steps, for methods that have them.
        iterations: outer steps.
        meta_batch: tasks per outer step.
        learning_rate: of Adam at the start of its schedule.
        schedule: of the learning rate.
        seed: of initialisation and episodes.
        validate_every: outer steps between validations.
        validation_episodes: tasks per validation.
        estimator: registered name of the estimator of the meta-gradient, where it is not the method's usual one.
        settings: of the method beyond steps, of its objective and of the estimator.
        backbone: registered name.
        backbone_settings: keyword settings of the backbone.
        class_balance: whether adapting follows all classes alike or in proportion to their examples, see LearnerSpec.
        init: SHA-256 of the parameters that training starts from, where it does not start from random ones.
        encoder: SHA-256 of the frozen encoder whose features are learned from, if there is one.
    """

    method: str
    data: str
    ways: int = 5
    shots: int = 1
    train_ways: int | None = None
    queries: int | None = None
    steps: int | None = None
    iterations: int | None = None
    meta_batch: int | None = None
    learning_rate: float | None = None
    schedule: Schedule = "cosine"
    seed: int = 0
    validate_every: int = 250
    validation_episodes: int = 200
    estimator: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    backbone: str | None = None
    backbone_settings: Mapping[str, Any] = field(default_factory=dict)
    class_balance: ClassBalance = "equal"
    init: str | None = None
    encoder: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True)
class TrainingPlan:
    """A run with every open choice made.

    Attributes:
        config: what was asked for, defaults filled in.
        learner: to train.
        estimator: of the gradient of the learner's objective.
        episodes: shape of training episodes.
        validation: shape of validation and test episodes.
        iterations: outer steps.
        meta_batch: tasks per outer step.
        optimizer: how parameters are changed.
    """

    config: TrainingConfig
    learner: Learner
    estimator: Estimator
    episodes: EpisodeShape
    validation: EpisodeShape
    iterations: int
    meta_batch: int
    optimizer: OptimizerPlan

    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters of the learner, and those that only training needs."""
        return {**self.learner.init(generator), **self.estimator.objective.init(generator)}

    @property
    def limits(self) -> TaskLimits:
        """What the bundle's tasks may look like."""
        return TaskLimits(
            trained_ways=self.validation.ways if self.learner.spec.task_kind == "classification" else 0,
            trained_shots=self.validation.shots,
            trained_steps=self.learner.default_steps,
            max_ways=self.learner.spec.max_ways,
            max_steps=self.learner.max_steps,
        )


def make_plan(config: TrainingConfig, source: DataSource) -> TrainingPlan:
    """Fill in defaults and check the whole, before anything is computed.

    Raises:
        ConfigError: settings that contradict each other or the method.
        DataError: the data can't give such episodes.
        UnknownNameError: no such method or backbone.
        SettingsError: settings that the method or backbone does not take.
    """
    check_config(config)
    info, defaults = methods[config.method].info, defaults_of(config.method)
    estimator_name = _given(config.estimator, defaults.estimator)
    settings = _settings(config, estimator_name)
    queries = _given(config.queries, defaults.queries)
    iterations = _given(config.iterations, defaults.iterations)
    meta_batch = _given(config.meta_batch, defaults.meta_batch)
    learning_rate = _given(config.learning_rate, defaults.learning_rate)
    spec = _spec(config, source, info, settings.of_method)
    learner = build_learner(spec)
    estimator = build_estimator(estimator_name, build_objective(learner, settings.of_objective), settings.of_estimator)
    if not learner.init(torch.Generator()):
        raise ConfigError(f"{config.method} learns nothing on a backbone without layers; choose another --backbone")
    validation = EpisodeShape(config.ways, config.shots, queries)
    episodes = replace(validation, ways=_training_ways(config, source, defaults))
    source.train.check(episodes)
    source.validation.check(validation)
    source.test.check(validation)
    completed = replace(
        config,
        encoder=None if source.encoder is None else f"sha256:{source.encoder.digest}",
        train_ways=episodes.ways if source.task_kind == "classification" else None,
        queries=queries,
        iterations=iterations,
        meta_batch=meta_batch,
        learning_rate=learning_rate,
        steps=learner.default_steps or None,
        estimator=None if estimator_name == defaults.estimator else estimator_name,
        settings={name: value for name, value in config.settings.items() if name != "steps"},
        backbone=spec.backbone,
        backbone_settings=spec.backbone_settings,
    )
    optimizer = OptimizerPlan(iterations, learning_rate, defaults.gradient_clip, config.schedule)
    return TrainingPlan(completed, learner, estimator, episodes, validation, iterations, meta_batch, optimizer)


def check_config(config: TrainingConfig) -> None:
    """Find mistakes that show without the data, which may take a while to read.

    Raises:
        ConfigError: settings that contradict each other or the method.
        UnknownNameError: no such method or backbone.
    """
    info = methods[config.method].info
    if config.backbone is not None:
        backbones[config.backbone]
    if config.estimator is not None:
        estimators[config.estimator]
    for name in _COUNTS:
        count = getattr(config, name)
        if count is not None and count < 1:
            raise ConfigError(f"{_option(name)} must be at least 1, not {count}")
    if config.learning_rate is not None and not 0 < config.learning_rate < math.inf:
        raise ConfigError(f"--learning-rate must be a positive number, not {config.learning_rate}")
    for option, value, choices in (
        ("schedule", config.schedule, get_args(Schedule)),
        ("class-balance", config.class_balance, get_args(ClassBalance)),
    ):
        if value not in choices:
            raise ConfigError(f"--{option} must be one of {', '.join(choices)}, not {value}")
    if config.steps is not None and not issubclass(methods[config.method].settings_class, StepSettings):
        raise ConfigError(f"{config.method} has no inner steps; leave --steps out")
    if config.steps is not None and config.settings.get("steps", config.steps) != config.steps:
        raise ConfigError(f"--steps is {config.steps}, but --set steps is {config.settings['steps']}; leave one out")
    if config.train_ways not in (None, config.ways) and info.ways_can_change != "any":
        raise ConfigError(f"{config.method} trains on as many ways as it serves; leave --train-ways out")


def differences(theirs: TrainingConfig, ours: TrainingConfig) -> list[str]:
    """How two configurations differ, one text for each field, or for each of its settings."""
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


def _given(value: T | None, default: T) -> T:
    return default if value is None else value


def _training_ways(config: TrainingConfig, source: DataSource, defaults: TrainingDefaults) -> int:
    """Classes per training episode; a method that likes many takes as many as there are."""
    if config.train_ways is not None:
        return config.train_ways
    if defaults.ways is None or source.task_kind == "regression":
        return config.ways
    return min(defaults.ways, len(source.train.names))


@dataclass(frozen=True)
class _Settings:
    """A run's settings by what they belong to."""

    of_method: Mapping[str, Any]
    of_objective: Mapping[str, Any]
    of_estimator: Mapping[str, Any]


def _settings(config: TrainingConfig, estimator: str) -> _Settings:
    """Tell apart what the user set, by name.

    Raises:
        SettingsError: a name that is none of the method's, its objective's or the estimator's.
    """
    method = methods[config.method]
    kinds = (method, objectives[method.info.objective], estimators[estimator])
    names = [[each.name for each in described(kind.settings_class)] for kind in kinds]
    known = [name for group in names for name in group]
    for name in config.settings:
        if name not in known:
            there_are = f"it has: {', '.join(known)}" if known else "it has none"
            raise SettingsError(f"{config.method} has no setting {name!r}; {there_are}")
    given = [{name: value for name, value in config.settings.items() if name in group} for group in names]
    if config.steps is not None:
        given[0]["steps"] = config.steps
    return _Settings(*given)


def _spec(config: TrainingConfig, source: DataSource, info: MethodInfo, settings: Mapping[str, Any]) -> LearnerSpec:
    max_ways = max(SERVING_WAYS, config.ways) if info.ways_can_change == "any" else config.ways
    if source.texts:
        raise ConfigError(f"{source.name} has texts, which methods don't read; name an encoder of texts with --encoder")
    usual = "adapter" if source.encoder is not None else "conv4" if len(source.input.shape) == 3 else "mlp"
    backbone = config.backbone or usual
    return LearnerSpec(
        method=config.method,
        input=source.input,
        task_kind=source.task_kind,
        max_ways=max_ways if source.task_kind == "classification" else 0,
        target_size=source.target_size,
        train_classes=len(source.train.names),
        backbone=backbone,
        backbone_settings={
            **_backbone_defaults(backbone, source.input, defaults_of(config.method)),
            **config.backbone_settings,
        },
        settings=settings,
        class_balance=config.class_balance,
    )


def _backbone_defaults(backbone: str, inputs: InputSpec, defaults: TrainingDefaults) -> dict[str, Any]:
    """The norm that suits the method, and strides where pooling would leave nothing of the image."""
    if backbone != "conv4":
        return {}
    small = len(inputs.shape) == 3 and min(inputs.shape[1:]) < 16
    return {"norm": defaults.norm, "downsample": "stride" if small else "max_pool"}

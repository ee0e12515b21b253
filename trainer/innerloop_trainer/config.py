"""What a training run was asked to do."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from innerloop_learner.bundle import TaskLimits
from innerloop_learner.learner import Learner, MethodInfo, TrainingDefaults, build_learner, methods
from innerloop_learner.spec import InputSpec, LearnerSpec
from innerloop_trainer.data import DataSource, EpisodeShape

SERVING_WAYS = 64
"""Most classes a request may have where the method itself sets no limit."""


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
        learning_rate: of Adam at the start of its cosine schedule.
        seed: of initialisation and episodes.
        validate_every: outer steps between validations.
        validation_episodes: tasks per validation.
        settings: of the method, beyond steps.
        backbone: registered name.
        backbone_settings: keyword settings of the backbone.
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
    seed: int = 0
    validate_every: int = 250
    validation_episodes: int = 200
    settings: Mapping[str, Any] = field(default_factory=dict)
    backbone: str | None = None
    backbone_settings: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True)
class TrainingPlan:
    """A run with every open choice made.

    Attributes:
        config: what was asked for, defaults filled in.
        learner: to train.
        episodes: shape of training episodes.
        validation: shape of validation and test episodes.
        iterations: outer steps.
        meta_batch: tasks per outer step.
        learning_rate: of Adam at the start of its cosine schedule.
        gradient_clip: largest norm of the meta-gradient.
    """

    config: TrainingConfig
    learner: Learner
    episodes: EpisodeShape
    validation: EpisodeShape
    iterations: int
    meta_batch: int
    learning_rate: float
    gradient_clip: float

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
        UnknownNameError: no such method, backbone, norm or update rule.
        ValueError: settings that the method or backbone does not take.
    """
    info = methods[config.method].info
    _check(config, info)
    defaults = info.training
    train_ways = config.train_ways or min(defaults.ways or config.ways, len(source.train.names))
    queries = config.queries or defaults.queries
    iterations = config.iterations or defaults.iterations
    meta_batch = config.meta_batch or defaults.meta_batch
    learning_rate = config.learning_rate or defaults.learning_rate
    spec = _spec(config, source, info)
    validation = EpisodeShape(config.ways, config.shots, queries)
    episodes = replace(validation, ways=max(train_ways, 1))
    source.train.check(episodes)
    source.validation.check(validation)
    complete = replace(
        config,
        train_ways=train_ways if source.task_kind == "classification" else None,
        queries=queries,
        iterations=iterations,
        meta_batch=meta_batch,
        learning_rate=learning_rate,
        settings=spec.settings,
        backbone=spec.backbone,
        backbone_settings=spec.backbone_settings,
    )
    learner = build_learner(spec)
    return TrainingPlan(
        complete, learner, episodes, validation, iterations, meta_batch, learning_rate, defaults.gradient_clip
    )


def _check(config: TrainingConfig, info: MethodInfo) -> None:
    if config.steps is not None and not info.gradients_at_serving:
        raise ConfigError(f"{config.method} has no inner steps; leave --steps out")
    if config.train_ways not in (None, config.ways) and info.ways_can_change != "any":
        raise ConfigError(f"{config.method} trains on as many ways as it serves; leave --train-ways out")


def _spec(config: TrainingConfig, source: DataSource, info: MethodInfo) -> LearnerSpec:
    settings = dict(config.settings)
    if config.steps is not None:
        settings["steps"] = config.steps
    max_ways = max(SERVING_WAYS, config.ways) if info.ways_can_change == "any" else config.ways
    backbone = config.backbone or ("conv4" if len(source.input.shape) == 3 else "mlp")
    return LearnerSpec(
        method=config.method,
        input=source.input,
        task_kind=source.task_kind,
        max_ways=max_ways if source.task_kind == "classification" else 0,
        target_size=source.target_size,
        backbone=backbone,
        backbone_settings={**_backbone_defaults(backbone, source.input, info.training), **config.backbone_settings},
        settings=settings,
    )


def _backbone_defaults(backbone: str, inputs: InputSpec, defaults: TrainingDefaults) -> dict[str, Any]:
    """The norm that suits the method, and strides where pooling would leave nothing of the image."""
    if backbone != "conv4":
        return {}
    small = len(inputs.shape) == 3 and min(inputs.shape[1:]) < 16
    return {"norm": defaults.norm, "downsample": "stride" if small else "max_pool"}

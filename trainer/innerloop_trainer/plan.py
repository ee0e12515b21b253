"""Makes the plan of a run from its configuration: fills in all defaults, and checks the whole."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

from innerloop_learner.acceleration import accelerated, in_low_precision
from innerloop_learner.augmentations import NONE
from innerloop_learner.gradient_learner import GradientLearner, recomputing
from innerloop_learner.learner import Learner, MethodInfo, build_learner, methods
from innerloop_learner.manifest import TaskLimits
from innerloop_learner.objectives import Objective, build_objective, objectives
from innerloop_learner.objectives.transformed import Transformed
from innerloop_learner.settings import NoSettings, SettingsError, described, with_settings
from innerloop_learner.spec import InputSpec, LearnerSpec
from innerloop_learner.tasks import Params
from innerloop_learner.transformations import build_transformation, transformations
from innerloop_trainer.config import ConfigError, TrainingConfig, check_config
from innerloop_trainer.data import (
    AugmentedTasks,
    DataSource,
    EpisodeShape,
    MixedTasks,
    read_augmentations,
    usual_augmentations,
)
from innerloop_trainer.measuring import USUAL_VALIDATION, tasks_to_measure
from innerloop_trainer.outer_loop import (
    Estimator,
    OptimizerPlan,
    TrainingDefaults,
    build_estimator,
    defaults_of,
    estimators,
)
from innerloop_trainer.teaching import NO_TEACHERS, Distillation, DistillationSettings, Teachers, teachings

T = TypeVar("T")


@dataclass(frozen=True)
class TrainingPlan:
    """A run with all defaults filled in.

    Attributes:
        config: configuration, defaults filled in.
        source: source of the episodes as the run sees it: without labels or augmented, if it is to be.
        learner: the learner to train.
        estimator: estimator of the gradient of the learner's objective.
        episodes: shape of training episodes.
        validation: shape of validation and test episodes.
        iterations: number of outer steps.
        meta_batch: number of tasks per outer step.
        validation_episodes: number of tasks per validation.
        optimizer: learning rate, its schedule, and largest gradient.
    """

    config: TrainingConfig
    source: DataSource
    learner: Learner
    estimator: Estimator
    episodes: EpisodeShape
    validation: EpisodeShape
    iterations: int
    meta_batch: int
    validation_episodes: int
    optimizer: OptimizerPlan

    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters of the learner, and of its objective, which only training needs."""
        return {**self.learner.init(generator), **self.estimator.objective.init(generator)}

    @property
    def limits(self) -> TaskLimits:
        """The limits of the bundle's tasks."""
        return TaskLimits(
            trained_ways=self.validation.ways if self.learner.spec.task_kind == "classification" else 0,
            trained_shots=self.validation.shots,
            trained_steps=self.learner.default_steps,
            max_ways=self.learner.spec.max_ways,
            max_steps=self.learner.max_steps,
        )


def make_plan(
    config: TrainingConfig, source: DataSource, device: torch.device | str, teachers: Teachers = NO_TEACHERS
) -> TrainingPlan:
    """Fill in defaults and check the whole, before anything is computed.

    Args:
        config: configuration of the run.
        source: the data that it names.
        device: device to train on.
        teachers: models that teach, on that device.

    Raises:
        ConfigError: settings that contradict each other, the method or the data.
        DataError: the data can't give such episodes, or there is no such augmentation.
        UnknownNameError: there is no method or backbone of this name.
        SettingsError: the method or backbone does not take these settings.
        TeacherError: a teacher can't teach on this data.
    """
    config = replace(config, teacher=teachers.record)
    check_config(config)
    if config.precision == "tf32" and torch.device(device).type == "cpu":
        raise ConfigError("tf32 is a precision of GPUs; take --precision bfloat16 on a CPU, or leave it out")
    info, defaults = methods[config.method].info, defaults_of(config.method)
    unlabelled = _given(config.unlabelled, defaults.unlabelled)
    usual = usual_augmentations(source.input.shape[0]) if unlabelled else None
    augment = _given(config.augment, usual)
    source = _mixed(_arranged(source, augment, unlabelled=unlabelled), config)
    usual_estimator = _usual_estimator(config, defaults)
    estimator_name = _given(config.estimator, usual_estimator)
    settings = _settings(config, estimator_name)
    queries = _given(config.queries, defaults.queries)
    iterations = _given(config.iterations, defaults.iterations)
    validation_episodes = _given(
        config.validation_episodes, tasks_to_measure(config.method, iterations, USUAL_VALIDATION)
    )
    least_domains = estimators[estimator_name].least_domains
    meta_batch = _given(config.meta_batch, max(defaults.meta_batch, least_domains))
    learning_rate = _given(config.learning_rate, defaults.learning_rate)
    spec = _spec(config, source, info, settings.of_method)
    if source.encoder is not None and spec.support_policy != "none":
        raise ConfigError(
            "a support policy changes images, and behind an encoder there are features; leave --support-policy out, "
            "or --encoder"
        )
    learner = accelerated(build_learner(spec), device)
    if source.encoder is not None and learner.backbone.noise.random:
        raise ConfigError(
            "noise is drawn from an example's values, and those of an encoder differ by rounding from one batch to "
            "another; leave --backbone-set noise out, or --encoder"
        )
    trained = in_low_precision(learner, device) if config.precision == "bfloat16" else learner
    trained = _recomputing(trained, estimator_name) if config.recompute else trained
    objective = _transformed(build_objective(trained, settings.of_objective), config, settings)
    objective = _taught(objective, config, teachers, settings, estimator_name)
    estimator = build_estimator(estimator_name, objective, settings.of_estimator)
    if config.mix_tasks and (objective.needs_classes or estimator.needs_classes):
        raise ConfigError(
            f"{config.method} tells training classes apart, and mixed ones are new; leave --mix-tasks out"
        )
    if not learner.init(torch.Generator()):
        raise ConfigError(f"{config.method} learns nothing on a backbone without layers; choose another --backbone")
    least_queries = estimator.objective.least_queries
    if queries < least_queries:
        raise ConfigError(f"{config.method} compares queries of a class; raise --queries to {least_queries} or more")
    if config.wrong_labels and source.task_kind == "regression":
        raise ConfigError(f"{source.name} has targets and no labels; leave --wrong-labels out")
    if config.class_balance != "equal" and source.task_kind == "regression":
        raise ConfigError(f"{source.name} has no classes to balance; leave --class-balance out")
    if settings.of_objective.get("in_turn"):
        _check_in_turn(config, estimator_name, queries, unlabelled=unlabelled)
    validation = EpisodeShape(config.ways, config.shots, queries, config.wrong_labels)
    episodes = replace(validation, ways=_training_ways(config, source, defaults))
    teachers.check(source, episodes.ways)
    source.train.check(episodes)
    source.validation.check(validation)
    source.test.check(validation)
    _check_domains(estimator_name, len(source.train.domains(episodes)), meta_batch, source.name, unlabelled=unlabelled)
    completed = replace(
        config,
        encoder=None if source.encoder is None else f"sha256:{source.encoder.digest}",
        train_ways=episodes.ways if source.task_kind == "classification" else None,
        queries=queries,
        iterations=iterations,
        meta_batch=meta_batch,
        validation_episodes=validation_episodes,
        learning_rate=learning_rate,
        steps=learner.default_steps or None,
        estimator=None if estimator_name == usual_estimator else estimator_name,
        unlabelled=None if unlabelled == defaults.unlabelled else unlabelled,
        augment=augment,
        settings={name: value for name, value in config.settings.items() if name != "steps"},
        backbone=spec.backbone,
        backbone_settings=spec.backbone_settings,
        policy_settings=spec.policy_settings,
    )
    optimizer = OptimizerPlan(iterations, learning_rate, defaults.gradient_clip, config.schedule, config.weight_decay)
    return TrainingPlan(
        completed, source, learner, estimator, episodes, validation, iterations, meta_batch, validation_episodes,
        optimizer,
    )  # fmt: skip


def _check_in_turn(config: TrainingConfig, estimator: str, queries: int, *, unlabelled: bool) -> None:
    """Check that examples of training tasks can take turns, and that the estimator has them do so."""
    if config.wrong_labels:
        raise ConfigError(
            "with in_turn, support examples are queries, too, and these need right labels; leave --wrong-labels or "
            "--set in_turn out"
        )
    if unlabelled or config.mix_tasks:
        option = "--unlabelled" if unlabelled else "--mix-tasks"
        raise ConfigError(
            f"examples take turns by their classes, and with {option} tasks name none; leave {option} or --set in_turn "
            "out"
        )
    if not estimators[estimator].asks_objective:
        raise ConfigError(
            f"the estimator {estimator} does not evaluate the loss that in_turn changes; leave --set in_turn out, or "
            "take another --estimator"
        )
    if estimator == "pilot" and queries % 2:
        raise ConfigError(
            "pilot halves the queries of a task, and for in_turn each half needs as many of every class; take an even "
            "number of --queries, or leave --set in_turn out"
        )


def _check_domains(estimator: str, domains: int, meta_batch: int, source: str, *, unlabelled: bool) -> None:
    """Check that the tasks of an outer step can be of as many domains as the estimator needs."""
    least = estimators[estimator].least_domains
    if domains < least and unlabelled:
        raise ConfigError(
            f"{estimator} holds out domains of classes, and without labels there are none; leave --unlabelled out, or "
            "take another --estimator"
        )
    if domains < least:
        there = f"only {domains} in training episodes of these ways" if domains else "none"
        raise ConfigError(
            f"{estimator} holds out domains, of which {source} has {there}; name them with ?domains= (see innerloop "
            "sources), or take another --estimator"
        )
    if meta_batch < least:
        raise ConfigError(f"{estimator} needs tasks of {least} domains; raise --meta-batch to {least} or more")


def _recomputing(learner: Learner, estimator: str) -> Learner:
    """The learner as it is trained where inner steps are recomputed."""
    if not isinstance(learner, GradientLearner) or not estimators[estimator].through_steps:
        raise ConfigError(
            f"training {learner.info.name} by {estimator} can't recompute inner steps; leave --recompute out"
        )
    return recomputing(learner)


def _given(value: T | None, default: T) -> T:
    return default if value is None else value


def _arranged(source: DataSource, augment: str | None, *, unlabelled: bool) -> DataSource:
    """The source without labels, or with training images that are augmented.

    Without labels, none is needed to choose the best parameters either. Test tasks keep theirs, if there are any.
    """
    if augment is None and not unlabelled:
        return source
    if source.encoder is not None or len(source.input.shape) != 3:
        raise ConfigError(f"{source.name} gives no images to augment; leave --augment and --unlabelled out")
    augmented = read_augmentations(augment or NONE)
    if not unlabelled:
        return replace(source, train=AugmentedTasks(source.train, augmented))
    return replace(
        source,
        description=f"{source.description}; trained without labels",
        train=source.train.without_labels(augmented),
        validation=source.validation.without_labels(augmented),
        test=source.test if source.test.labelled else source.test.without_labels(augmented),
    )


def _mixed(source: DataSource, config: TrainingConfig) -> DataSource:
    """The source with training tasks that are mixed, if they are to be."""
    if not config.mix_tasks:
        return source
    if source.task_kind == "regression":
        raise ConfigError(f"{source.name} has no classes to mix; leave --mix-tasks out")
    if config.wrong_labels:
        raise ConfigError(
            "examples are mixed label by label, right ones alone; leave --wrong-labels or --mix-tasks out"
        )
    return replace(source, train=MixedTasks(source.train, config.mix_tasks))


def _training_ways(config: TrainingConfig, source: DataSource, defaults: TrainingDefaults) -> int:
    """Number of classes per training episode; a default that is larger than split or domains is cut to their size."""
    if config.train_ways is not None:
        return config.train_ways
    if defaults.ways is None or source.task_kind == "regression":
        return config.ways
    if not source.train.names:
        return defaults.ways
    return max(min(config.ways, len(source.train.names)), min(defaults.ways, source.train.ways_anywhere))


def _usual_estimator(config: TrainingConfig, defaults: TrainingDefaults) -> str:
    """The estimator of a run that names none: that of the method, or one that changes teachers where it should."""
    learned = teachings[config.teaching].learns
    return "pilot" if learned and defaults.estimator == "backpropagation" else defaults.estimator


def _transformed(objective: Objective, config: TrainingConfig, settings: "_Settings") -> Objective:
    """The objective under the transformation of the run; as it is if there is none."""
    if config.transform is None:
        return objective
    if config.teacher is not None:
        raise ConfigError("teachers see features as they are; leave --transform or --teacher out")
    learner = objective.learner
    return Transformed(objective, build_transformation(config.transform, learner, settings.of_transformation))


def _taught(
    objective: Objective, config: TrainingConfig, teachers: Teachers, settings: "_Settings", estimator: str
) -> Objective:
    """The objective of a student of these teachers; the student's own if there are none."""
    if not teachers.bundles:
        return objective
    teaching = teachings[config.teaching]()
    needed = "learned" if teaching.learns else "fixed"
    if teaching.learns and objective.learner.choices():
        raise ConfigError(
            f"teachers can't learn to teach {config.method}, whose choices no gradient reaches; leave --teaching out"
        )
    if estimators[estimator].teachers != needed:
        fitting = [name for name in estimators if estimators[name].teachers == needed]
        raise ConfigError(
            f"the estimator {estimator} does not train {config.method} with --teaching {config.teaching}; choose "
            f"--estimator {' or '.join(fitting)}"
        )
    given = with_settings("distillation", DistillationSettings, settings.of_distillation)
    return Distillation(objective, teachers, teaching, given)


@dataclass(frozen=True)
class _Settings:
    """A run's settings, divided by owner: method, objective, estimator, transformation and distillation."""

    of_method: Mapping[str, Any]
    of_objective: Mapping[str, Any]
    of_estimator: Mapping[str, Any]
    of_transformation: Mapping[str, Any]
    of_distillation: Mapping[str, Any]


def _settings(config: TrainingConfig, estimator: str) -> _Settings:
    """Divide the user's settings among their owners, by name.

    Raises:
        SettingsError: a name belongs to none of them.
    """
    method = methods[config.method]
    kinds = [each.settings_class for each in (method, objectives[method.info.objective], estimators[estimator])]
    kinds.append(NoSettings if config.transform is None else transformations[config.transform].settings_class)
    kinds.append(NoSettings if config.teacher is None else DistillationSettings)
    names = [[each.name for each in described(kind)] for kind in kinds]
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
    max_ways = config.ways
    if info.ways_can_change == "any":
        max_ways = _given(config.max_ways, max(defaults_of(config.method).max_ways, config.ways))
    if source.texts:
        raise ConfigError(f"{source.name} has texts, which methods don't read; name an encoder of texts with --encoder")
    usual = "conv4" if len(source.input.shape) == 3 else "mlp" if source.encoder is None else "adapter"
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
        weighting=config.weighting,
        support_policy=config.support_policy,
        policy_settings=config.policy_settings,
    )


def _backbone_defaults(backbone: str, inputs: InputSpec, defaults: TrainingDefaults) -> dict[str, Any]:
    """Defaults of the backbone: the norm that suits the method, and what suits small images."""
    if backbone not in _SUITED_TO_SIZE:
        return {}
    smallest = min(inputs.shape[1:]) if len(inputs.shape) == 3 else 0
    return {"norm": defaults.norm, **_SUITED_TO_SIZE[backbone](smallest)}


_SUITED_TO_SIZE: Mapping[str, Callable[[int], dict[str, Any]]] = {
    "cell": lambda _: {},
    "conv4": lambda size: {"downsample": "stride" if 0 < size < 16 else "max_pool"},
    "resnet12": lambda size: {"drop_size": 2 if size < 64 else 5},
    "resnet18": lambda size: {"stem": "small" if size < 64 else "large"},
}
"""Backbones whose usual norm is the method's, and what else suits images whose shorter side has so many pixels.

What is dropped in small images is as small as in Lee et al. 2019 (section 4.1).
"""

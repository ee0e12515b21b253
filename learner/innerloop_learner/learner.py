"""The one interface that trainer, evaluator, server and exporter know."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from innerloop_learner.backbones.backbone import backbones, build_backbone
from innerloop_learner.losses import classification_loss, regression_loss
from innerloop_learner.norms import running_average
from innerloop_learner.registry import Registry
from innerloop_learner.settings import SettingsError, complete, with_settings
from innerloop_learner.spec import LearnerSpec, TaskKind
from innerloop_learner.tasks import Adapted, Episodes, Params, Query, Support, TaskState

Family = Literal["initialisation", "optimizer", "metric", "memory", "weights", "baseline"]


class TaskError(ValueError):
    """A task that a learner can't take; the message says why."""


@dataclass(frozen=True)
class TrainingDefaults:
    """How a method is meta-trained unless the user says otherwise.

    Attributes:
        ways: classes per training episode; None means those of the test tasks.
        queries: queries per class.
        meta_batch: tasks per outer step.
        iterations: outer steps.
        learning_rate: of Adam, annealed to zero along a cosine.
        gradient_clip: largest norm of the meta-gradient.
        norm: registered name of the backbone's norm.
    """

    ways: int | None = None
    queries: int = 15
    meta_batch: int = 16
    iterations: int = 5000
    learning_rate: float = 1e-3
    gradient_clip: float = 10.0
    norm: str = "task"


@dataclass(frozen=True)
class MethodInfo:
    """What a user may want to know of a method before choosing it.

    Attributes:
        name: registered name.
        family: kind of method.
        paper: where it comes from.
        gradients_at_serving: whether adapting computes gradients.
        order_matters: whether the order of the support set changes the answer.
        ways_can_change: which numbers of ways other than the trained one it can serve.
        tasks: the kinds of task it solves.
        training: defaults of meta-training.
    """

    name: str
    family: Family
    paper: str
    gradients_at_serving: bool
    order_matters: bool
    ways_can_change: Literal["no", "fewer", "any"]
    tasks: tuple[TaskKind, ...]
    training: TrainingDefaults = field(default_factory=TrainingDefaults)


@dataclass(frozen=True)
class Stage:
    """Where meta-training stands when an outer loss is asked for.

    Attributes:
        progress: share of the outer steps taken so far, 0 to 1; for losses that change in the course of training.
        seed: of all randomness inside the outer loss, another one for each outer step.
    """

    progress: float = 1.0
    seed: int = 0

    def generator(self) -> torch.Generator:
        """A generator for one use, on the CPU, so that every device draws alike."""
        return torch.Generator().manual_seed(self.seed)


class Objective(NamedTuple):
    """The outer loss and what came with it.

    Attributes:
        loss: mean query loss, a scalar to differentiate with respect to the parameters.
        outputs: logits [T, Q, W] or values [T, Q, D] of the queries.
        buffers: new values of parameters that are averaged rather than learned (running statistics).
    """

    loss: Tensor
    outputs: Tensor
    buffers: Params


class Learner(ABC):
    """Learns to learn: `state = adapt(support)`, then `outputs = predict(state, query)`.

    A learner holds settings only, every default filled in. Its functions are pure: parameters come in, nothing is kept.
    Whether gradients flow through `adapt` follows from torch's grad mode, so training and serving run the same code.
    """

    info: ClassVar[MethodInfo]
    _steps = 0
    _max_steps = 0

    def __init__(self, spec: LearnerSpec) -> None:
        if spec.task_kind not in self.info.tasks:
            raise SettingsError(
                f"{self.info.name} does not solve {spec.task_kind} tasks, only {', '.join(self.info.tasks)}"
            )
        with_settings(self.info.name, self._configure, spec.settings)
        self.backbone = build_backbone(spec.backbone, spec.input.shape, spec.backbone_settings)
        self.spec = replace(
            spec,
            settings=complete(self._configure, spec.settings),
            backbone_settings=complete(backbones[spec.backbone], spec.backbone_settings),
        )

    def _configure(self) -> None:  # noqa: B027 - methods without settings inherit it
        """Take the method's settings, which are the keyword arguments of this function.

        Raises:
            ValueError: values that contradict each other.
        """

    def _take_steps(self, steps: int, max_steps: int) -> None:
        """Take the numbers of inner steps; what `_configure` of a method with steps calls.

        Raises:
            ValueError: steps outside 1 to `max_steps`.
        """
        if not 0 < steps <= max_steps:
            raise ValueError(f"steps must lie between 1 and max_steps ({max_steps}), not {steps}")
        self._steps, self._max_steps = steps, max_steps

    @abstractmethod
    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters, drawn from `generator` (on the CPU, so that every device starts alike)."""

    def buffers(self) -> frozenset[str]:
        """Names of parameters that no gradient updates."""
        return self.backbone.buffers()

    def training_only(self) -> frozenset[str]:
        """Names of parameters that serving never reads; bundles leave them out."""
        return frozenset()

    def padded_ways(self, ways: int) -> int:
        """The `Support.max_ways` of tasks with up to `ways` classes: the width of a fixed head, otherwise `ways`.

        Raises:
            TaskError: it can't take that many classes, or that few.
        """
        change, width = self.info.ways_can_change, self.spec.max_ways
        if change == "any" or self.spec.task_kind == "regression":
            return ways
        if ways > width or (ways < width and change == "no"):
            takes = f"at most {width}" if change == "fewer" else f"exactly {width}"
            raise TaskError(f"this {self.info.name} model takes {takes} ways, not {ways}")
        return width

    @property
    def default_steps(self) -> int:
        """Inner steps taken when a request names none; zero for methods without steps."""
        return self._steps

    @property
    def max_steps(self) -> int:
        """Most inner steps a request may ask for; zero for methods without steps."""
        return self._max_steps

    @abstractmethod
    def adapt(self, params: Params, support: Support, steps: int | None = None) -> Adapted:
        """Learn T tasks from their support sets.

        Args:
            params: meta-learned parameters.
            support: the labelled examples.
            steps: inner steps, `default_steps` when None; methods without steps ignore it.

        Returns:
            the task state, every tensor [T, ...], and the support loss before each step [T, steps].
        """

    @abstractmethod
    def predict(self, params: Params, state: TaskState, query: Query) -> Tensor:
        """Answer queries: logits [T, Q, W], -inf past a task's ways, or values [T, Q, D].

        An answer depends on the task state and its own query only.
        """

    def refit_buffers(self, params: Params, support: Support) -> Params:
        """Values that the buffers would take from this support set alone, differentiable; empty without buffers."""
        return self.backbone.refit(params, support.x, support.mask) if self.buffers() else {}

    def objective(self, params: Params, episodes: Episodes, stage: Stage) -> Objective:
        """Mean query loss after adapting, what the outer loop minimises.

        Training is serving with buffers refitted to the batch: gradients flow through the statistics that the batch
        is normalised with, while the averages that serving uses are updated on the side.

        Args:
            params: meta-learned parameters.
            episodes: tasks with the answers to their queries.
            stage: of meta-training.
        """
        del stage
        fresh = self.refit_buffers(params, episodes.support)
        in_use = {**params, **fresh}
        state, _ = self.adapt(in_use, episodes.support)
        outputs = self.predict(in_use, state, episodes.query)
        loss = self.loss(outputs, episodes.targets, episodes.query.mask).mean()
        return Objective(loss, outputs, running_average(params, fresh))

    def loss(self, outputs: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
        """Mean loss of each task [T]: cross-entropy or squared error, over examples where `mask` is true."""
        if self.spec.task_kind == "classification":
            return classification_loss(outputs, targets, mask)
        return regression_loss(outputs, targets, mask)

    def describe(self) -> dict[str, Any]:
        """The spec as plain data, for manifests."""
        return self.spec.to_json()


methods: Registry[type[Learner]] = Registry("method", "innerloop.methods", "innerloop_learner.methods")


def build_learner(spec: LearnerSpec) -> Learner:
    """The learner a spec describes.

    Raises:
        UnknownNameError: no such method or backbone.
        SettingsError: a kind of task, an input or settings that they do not take.
    """
    return methods[spec.method](spec)

"""The interface of outer losses."""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor

from innerloop_learner.backbones.backbone import Disturbance
from innerloop_learner.learner import Learner
from innerloop_learner.registry import Registry
from innerloop_learner.settings import NoSettings, SettingsError, refusing, with_settings
from innerloop_learner.tasks import Episodes, Params, Support
from innerloop_learner.transfer import sent

T = TypeVar("T")

MOMENTUM = 0.1
"""Share of a batch's own statistics in the new value of a buffer, as in PyTorch's batch normalisation."""

MOST_SEEDS = 2**31 - 1
"""Number of seeds of disturbances of features; their sum with a key of an example stays far below 2^63."""


@dataclass(frozen=True)
class Stage:
    """The stage of meta-training at which an outer loss is computed.

    Attributes:
        progress: share of the outer steps taken so far, 0 to 1; for losses that change in the course of training.
        seed: seed of all randomness inside the outer loss, different for each outer step.
    """

    progress: float = 1.0
    seed: int = 0

    def generator(self, use: str = "") -> torch.Generator:
        """A generator for one use, on the CPU, so that every device draws alike; other uses draw other numbers."""
        return torch.Generator().manual_seed(self.seed ^ zlib.crc32(use.encode()))

    def made(self, make: "Callable[[Stage], Params]", device: torch.device) -> Params:
        """Tensors that follow from the stage alone, made on the CPU and sent to a device, for which nobody waits.

        An outer step that reads its stage by this and by `chosen` alone does the same work in every step for which
        the same is chosen, so that it can be recorded once and replayed with other numbers.

        Args:
            make: function of the stage; in every step it gives tensors of the same names, shapes and types.
            device: where they are wanted.
        """
        return sent(make(self), device)

    def chosen(self, choose: "Callable[[Stage], T]") -> T:
        """What a function of the stage chooses, of a few values, each of which holds for many steps."""
        return choose(self)


class Outcome(NamedTuple):
    """An outer loss and what came with it.

    Attributes:
        loss: a scalar to differentiate with respect to the parameters.
        outputs: logits [T, Q, W] or values [T, Q, D] of the queries.
        buffers: new values of parameters that are averaged rather than learned (running statistics).
    """

    loss: Tensor
    outputs: Tensor
    buffers: Params


class Objective(ABC):
    """The function that the outer loop minimises: a scalar, pure function of parameters and a batch of episodes.

    Args:
        learner: learner to train.
        settings: an instance of `settings_class`, checked already.

    Raises:
        SettingsError: the learner is not an instance of `trains`, or lacks a part that the objective needs.
        ValueError: the settings do not fit the learner.
    """

    settings_class: ClassVar[type[Any]] = NoSettings
    """A frozen dataclass of the objective's settings, each declared by `settings.setting`."""

    trains: ClassVar[type[Any]] = Learner
    """The class of learners that it can train."""

    least_queries: int = 1
    """Fewest queries of a class that an episode must have."""

    needs_classes: bool = False
    """Whether it needs episodes that name their classes among those of training."""

    gives_answers: ClassVar[bool] = True
    """Whether its outputs are answers of the learner through which gradients flow, so that teachers can correct it."""

    def __init__(self, learner: Learner, settings: Any) -> None:
        if not isinstance(learner, self.trains):
            raise SettingsError(f"{learner.info.name} is not a {self.trains.__name__}, which its objective trains")
        self.learner: Any = learner
        self.settings = settings

    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters of the objective's own, which are trained with the learner's and never served."""
        del generator
        return {}

    @property
    def plain(self) -> "Objective":
        """The same loss of the learner as it serves, without what training does to its features."""
        return self

    def asking(self, params: Params, stage: Stage) -> Params:
        """The parameters by which queries are asked: features may be disturbed then, and never while adapting."""

        def chosen() -> Disturbance:
            made = stage.made(_disturbance, next(iter(params.values())).device)
            return Disturbance(made["seed"], made["progress"])

        asked: Params = self.learner.backbone.disturbed(params, chosen)
        return asked

    def strengths(self) -> frozenset[str]:
        """Names of parameters that say how much training disturbs the learner.

        The loss itself would only teach them to disturb nothing. They stay as they are, unless an estimator asks tasks
        that were held out.
        """
        return frozenset()

    @abstractmethod
    def __call__(self, params: Params, episodes: Episodes, stage: Stage) -> Outcome:
        """Evaluate the outer loss, differentiable with respect to `params`.

        Args:
            params: parameters of the learner and of the objective.
            episodes: tasks with the answers to their queries.
            stage: stage of meta-training.
        """


objectives: Registry[type[Objective]] = Registry("objective", "innerloop.objectives", "innerloop_learner.objectives")


def build_objective(learner: Learner, settings: Mapping[str, Any] = MappingProxyType({})) -> Objective:
    """Build the objective that trains a learner.

    Raises:
        UnknownNameError: the learner's method names an objective that is not installed.
        SettingsError: the objective does not take these settings.
    """
    kind, owner = objectives[learner.info.objective], learner.info.name
    with refusing(owner):
        return kind(learner, with_settings(owner, kind.settings_class, settings))


def _disturbance(stage: Stage) -> Params:
    """What a stage says of how features are disturbed, see `Disturbance`."""
    seed = torch.randint(MOST_SEEDS, (1,), generator=stage.generator("features"))
    return {"seed": seed, "progress": torch.tensor([stage.progress], dtype=torch.float64)}


def refitted(learner: Learner, params: Params, support: Support) -> Params:
    """The values that the learner's buffers would have for this support set alone, differentiable.

    Training uses these values where serving uses averages, so that gradients flow through the statistics of the batch.
    The averages are updated apart from that (`averaged`). Empty for learners whose norms have no buffers.
    """
    return learner.backbone.refit(params, support.x, learner.example_weights(support))


def averaged(old: Params, fresh: Params) -> Params:
    """The exponential average of the buffers in `fresh` with those in `old`, without gradients."""
    return {name: old[name].lerp(value.detach(), MOMENTUM) for name, value in fresh.items()}

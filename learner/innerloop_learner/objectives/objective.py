"""The interface of outer losses."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from innerloop_learner.learner import Learner
from innerloop_learner.registry import Registry
from innerloop_learner.settings import NoSettings, SettingsError, refusing, with_settings
from innerloop_learner.tasks import Episodes, Params, Support

MOMENTUM = 0.1
"""Share of a batch's own statistics in the new value of a buffer, as in PyTorch's batch normalisation."""


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
    """What the outer loop minimises: a scalar function of named parameters and a batch of episodes, pure.

    Args:
        learner: that it trains.
        settings: of `settings_class`, checked.

    Raises:
        SettingsError: a learner that is not one of `trains`, or lacks what the objective needs.
        ValueError: settings that do not fit the learner.
    """

    settings_class: ClassVar[type[Any]] = NoSettings
    """A frozen dataclass of the objective's settings, each declared by `settings.setting`."""

    trains: ClassVar[type[Any]] = Learner
    """The class of learners that it can train."""

    def __init__(self, learner: Learner, settings: Any) -> None:
        if not isinstance(learner, self.trains):
            raise SettingsError(f"{learner.info.name} is not a {self.trains.__name__}, which its objective trains")
        self.learner: Any = learner
        self.settings = settings

    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters of the objective's own, which are trained with the learner's and never served."""
        del generator
        return {}

    @abstractmethod
    def __call__(self, params: Params, episodes: Episodes, stage: Stage) -> Outcome:
        """Evaluate the outer loss, differentiable with respect to `params`.

        Args:
            params: the learner's and the objective's own.
            episodes: tasks with the answers to their queries.
            stage: of meta-training.
        """


objectives: Registry[type[Objective]] = Registry("objective", "innerloop.objectives", "innerloop_learner.objectives")


def build_objective(learner: Learner, settings: Mapping[str, Any] = MappingProxyType({})) -> Objective:
    """The objective that trains a learner.

    Raises:
        UnknownNameError: its method names one that is not installed.
        SettingsError: settings that the objective does not take.
    """
    kind, owner = objectives[learner.info.objective], learner.info.name
    with refusing(owner):
        return kind(learner, with_settings(owner, kind.settings_class, settings))


def refitted(learner: Learner, params: Params, support: Support) -> Params:
    """Values that the learner's buffers would take from this support set alone, differentiable.

    Training is serving with these: gradients flow through the statistics that the batch is normalised with, while the
    averages that serving uses are updated on the side (`averaged`). Empty for learners without buffers.
    """
    return learner.backbone.refit(params, support.x, learner.example_weights(support)) if learner.buffers() else {}


def averaged(old: Params, fresh: Params) -> Params:
    """Exponential average of the buffers in `fresh` with those in `old`, without gradients."""
    return {name: old[name].lerp(value.detach(), MOMENTUM) for name, value in fresh.items()}

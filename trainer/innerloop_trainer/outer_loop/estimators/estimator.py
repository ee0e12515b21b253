"""The interface of estimators of the meta-gradient."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from innerloop_learner.objectives import Objective, Stage
from innerloop_learner.registry import Registry
from innerloop_learner.settings import NoSettings, refusing, with_settings
from innerloop_learner.tasks import Episodes, Params


@dataclass(frozen=True)
class Estimate:
    """What an estimator found on one batch of episodes.

    Attributes:
        gradients: by name of meta-parameter, which way is up; meta-parameters without one stay as they are.
        buffers: new values of the buffers.
        loss: outer loss, a scalar.
        outputs: logits [T, Q, W] or values [T, Q, D] of the queries.
        carried: what the estimator takes to its next call, tensors by name: a baseline, the state of long unrolls.
    """

    gradients: Params
    buffers: Params
    loss: Tensor
    outputs: Tensor
    carried: Params = field(default_factory=dict)


class Estimator(ABC):
    """Estimates the gradient of an objective with respect to named meta-parameters.

    An estimator keeps nothing between calls but what it returns as `Estimate.carried`, which the outer loop hands back
    and saves with the run: that is all that estimators with a memory (moving baselines, persistent evolution) need.

    Args:
        objective: to lower.
        settings: of `settings_class`, checked.

    Raises:
        ValueError: an objective or a learner that it is not made for.
    """

    settings_class: ClassVar[type[Any]] = NoSettings
    """A frozen dataclass of the estimator's settings, each declared by `settings.setting`."""

    def __init__(self, objective: Objective, settings: Any) -> None:
        self.objective = objective
        self.settings = settings

    def start(self, params: Params) -> Params:
        """What is carried to the first call."""
        del params
        return {}

    @abstractmethod
    def estimate(self, params: Params, carried: Params, episodes: Episodes, stage: Stage) -> Estimate:
        """Evaluate `params` on a batch of episodes.

        Args:
            params: all meta-parameters and buffers.
            carried: what `start`, or the call before, returned.
            episodes: tasks with the answers to their queries.
            stage: of meta-training, with the seed of all randomness.
        """


estimators: Registry[type[Estimator]] = Registry(
    "estimator", "innerloop.estimators", "innerloop_trainer.outer_loop.estimators"
)


def build_estimator(name: str, objective: Objective, settings: Mapping[str, Any]) -> Estimator:
    """The estimator of that name, for an objective.

    Raises:
        UnknownNameError: no such estimator.
        SettingsError: settings that it does not take, or a learner that it is not made for.
    """
    kind, owner = estimators[name], f"estimator {name}"
    with refusing(owner):
        return kind(objective, with_settings(owner, kind.settings_class, settings))

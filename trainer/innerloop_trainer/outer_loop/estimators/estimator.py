"""The interface of estimators of the meta-gradient."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import Tensor

from innerloop_learner.objectives import Objective, Stage
from innerloop_learner.registry import Registry
from innerloop_learner.settings import NoSettings, refusing, with_settings
from innerloop_learner.tasks import Episodes, Params

TeachersTaken = Literal["none", "fixed", "learned"]
"""Teachers of students: none at all, such as stay as they are, or such of which something is learned."""


@dataclass(frozen=True)
class Estimate:
    """The result of an estimator on one batch of episodes.

    Attributes:
        gradients: gradient of each meta-parameter by name; meta-parameters without a gradient stay as they are.
        buffers: new values of the buffers.
        loss: outer loss, a scalar.
        outputs: logits [T, Q, W] or values [T, Q, D] of the queries.
        carried: tensors by name that the estimator needs in its next call, such as a baseline or the state of a long
            unroll.
        answered: tasks that the outputs answer; None for those that the estimator was given.
    """

    gradients: Params
    buffers: Params
    loss: Tensor
    outputs: Tensor
    carried: Params = field(default_factory=dict)
    answered: Episodes | None = None


class Estimator(ABC):
    """Estimates the gradient of an objective with respect to named meta-parameters.

    An estimator has no state of its own. Estimators with a memory (moving baselines, persistent evolution) return it as
    `Estimate.carried`; the outer loop saves it with the run and gives it back in the next call.

    Args:
        objective: objective to minimise.
        settings: an instance of `settings_class`, checked already.

    Raises:
        ValueError: the estimator does not suit this objective or learner.
    """

    settings_class: ClassVar[type[Any]] = NoSettings
    """A frozen dataclass of the estimator's settings, each declared by `settings.setting`."""

    teachers: ClassVar[TeachersTaken] = "none"
    """The teachers whose students it trains."""

    least_domains: ClassVar[int] = 0
    """Fewest domains that the tasks of an outer step must be of; zero where they need none."""

    needs_classes: ClassVar[bool] = False
    """Whether it needs episodes that name their classes among those of training."""

    asks_objective: ClassVar[bool] = True
    """Whether it evaluates the objective, with all that training adds to it, rather than the learner."""

    learns_architecture: ClassVar[bool] = False
    """Whether it learns what the network is (`Backbone.architecture`), as only a search should."""

    through_steps: ClassVar[bool] = False
    """Whether it differentiates through inner steps, so that it needs the activations of each, kept or recomputed."""

    in_parts: bool = False
    """Whether several processes may compute the estimate of a batch, each for a part of its tasks.

    The gradients, the buffers and the loss of the batch must then be the means over its tasks of what the parts find,
    and all parts must find the same to carry. An estimator that makes more of a mean over tasks than a sum asks
    `parts.current_part()` for the mean over the batch, and draws numbers for tasks as for the batch.
    """

    def __init__(self, objective: Objective, settings: Any) -> None:
        self.objective = objective
        self.settings = settings

    def start(self, params: Params) -> Params:
        """The tensors to carry to the first call."""
        del params
        return {}

    def rates(self) -> Mapping[str, float]:
        """Learning rates of meta-parameters by name, in parts of the run's learning rate; 1 for those left out."""
        return {}

    def estimate_ahead(self, params: Params, episodes: Episodes, stage: Stage) -> Params:
        """The gradients of meta-parameters that take their step before the others are estimated; none usually.

        The arguments are those of `estimate`, which is called for the same outer step with the changed parameters and
        gives no gradients for these.
        """
        del params, episodes, stage
        return {}

    @abstractmethod
    def estimate(self, params: Params, carried: Params, episodes: Episodes, stage: Stage) -> Estimate:
        """Evaluate `params` on a batch of episodes.

        Args:
            params: all meta-parameters and buffers.
            carried: tensors that `start` or the call before returned.
            episodes: tasks with the answers to their queries.
            stage: stage of meta-training, with the seed of all randomness.
        """


estimators: Registry[type[Estimator]] = Registry(
    "estimator", "innerloop.estimators", "innerloop_trainer.outer_loop.estimators"
)


def build_estimator(name: str, objective: Objective, settings: Mapping[str, Any]) -> Estimator:
    """Build the estimator that is registered under a name, for an objective.

    Raises:
        UnknownNameError: no estimator has this name.
        SettingsError: the estimator does not take these settings, or does not suit the learner.
    """
    kind, owner = estimators[name], f"estimator {name}"
    with refusing(owner):
        if objective.strengths() and not kind.asks_objective:
            raise ValueError("it would leave the transformation out; leave --transform out, or take another estimator")
        if objective.learner.backbone.architecture() and not kind.learns_architecture:
            raise ValueError("it learns no mixture of operations; `innerloop search darts` does, take another backbone")
        return kind(objective, with_settings(owner, kind.settings_class, settings))

"""The interface of transformations."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from innerloop_learner.learner import Learner
from innerloop_learner.registry import Registry
from innerloop_learner.settings import NoSettings, refusing, with_settings
from innerloop_learner.tasks import Params

STRENGTHS = "transformation."
"""Prefix of the names of a transformation's parameters."""


class Transformation(ABC):
    """Changes the features of a learner at random, by giving each task other parameters; its functions are pure.

    Args:
        learner: learner that is trained.
        settings: an instance of `settings_class`, checked already.

    Raises:
        ValueError: the learner has no place for it.
    """

    settings_class: ClassVar[type[Any]] = NoSettings
    """A frozen dataclass of the transformation's settings, each declared by `settings.setting`."""

    def __init__(self, learner: Learner, settings: Any) -> None:
        self.learner = learner
        self.settings = settings

    @abstractmethod
    def init(self) -> Params:
        """Its strengths at first, whose names begin with STRENGTHS."""

    @abstractmethod
    def transformed(self, params: Params, tasks: int, generator: torch.Generator) -> Params:
        """The parameters that take the place of those of the same names, [T, ...] each, one for each task.

        Args:
            params: meta-learned parameters, the strengths among them; the result is differentiable in both.
            tasks: number of tasks T.
            generator: source of randomness, on the CPU, so that every device draws alike.
        """


transformations: Registry[type[Transformation]] = Registry(
    "transformation", "innerloop.transformations", "innerloop_learner.transformations"
)


def build_transformation(name: str, learner: Learner, settings: Mapping[str, Any]) -> Transformation:
    """Build the transformation that is registered under a name, for a learner.

    Raises:
        UnknownNameError: no transformation has this name.
        SettingsError: it does not take these settings, or the learner has no place for it.
    """
    kind, owner = transformations[name], f"transformation {name}"
    with refusing(owner):
        return kind(learner, with_settings(owner, kind.settings_class, settings))

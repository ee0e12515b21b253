"""The interface of teachings, which say what of the teachers is learned along with the student."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from innerloop_learner.registry import Registry
from innerloop_learner.settings import setting
from innerloop_learner.tasks import Params
from innerloop_trainer.teaching.teachers import Teachers


@dataclass(frozen=True)
class DistillationSettings:
    """How much a student learns from teachers, and how."""

    teacher_share: float = setting(
        0.5, "weight of the teachers' answers in the loss of a student; labels have the rest", least=0.0, most=1.0
    )
    temperature: float = setting(
        4.0, "divisor of the logits of teachers and student, where they are compared; at first, if learned", least=0.01
    )


class Teaching(ABC):
    """Says what of the teachers is learned along with the student; stateless."""

    settings_class: ClassVar[type[DistillationSettings]] = DistillationSettings

    learns: ClassVar[bool] = True
    """Whether anything of the teachers is learned."""

    rate: ClassVar[float] = 1.0
    """Usual learning rate of what is learned, in learning rates of the student."""

    @abstractmethod
    def init(self, teachers: Teachers, temperature: float) -> Params:
        """What is learned, as it is at first: the `temperature` or parts of the teachers."""

    def temperature(self, learned: Params, given: Tensor) -> Tensor:
        """The temperature to use, a scalar, by what was learned and what was given."""
        del learned
        return given

    def heads(self, learned: Params) -> Params:
        """Parameters to use in the place of those of the teachers, named as by `Teachers.heads`."""
        del learned
        return {}


teachings: Registry[type[Teaching]] = Registry("teaching", "innerloop.teachings", "innerloop_trainer.teaching")

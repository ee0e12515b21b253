"""The support sets and queries of callers."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from innerloop_server.domain.models import ServedModel

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class SupportSet:
    """The labelled examples of one task.

    Attributes:
        x: raw inputs [S, *input], uint8 or float32.
        y: class indices [S] int64, or targets [S, D] float32.
        ways: number of classes; zero for regression.
    """

    x: Array
    y: Array
    ways: int

    @property
    def size(self) -> int:
        """Number of examples S."""
        return len(self.x)


@dataclass(frozen=True, slots=True)
class AdaptTask:
    """A decoded Adapt request.

    Attributes:
        model: that shall adapt.
        support: the labelled examples.
        classes: their labels by class index; empty for regression.
        steps: inner steps.
        steps_chosen: whether the caller chose them, or they are the model's usual ones.
    """

    model: ServedModel
    support: SupportSet
    classes: tuple[str, ...]
    steps: int
    steps_chosen: bool = True


@dataclass(frozen=True, slots=True)
class PredictTask:
    """A decoded Predict request.

    Attributes:
        model: that the query was checked against.
        adaptation_id: of the adaptation that shall answer.
        query: raw inputs [Q, *input].
    """

    model: ServedModel
    adaptation_id: str
    query: Array

"""The support sets and queries of callers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from innerloop_server.domain.models import ServedModel

Array = NDArray[Any]

Parts = Sequence[NDArray[np.intp]]
"""Places of the examples of a support set that are left out together, for each task that is to be without some."""


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

    @property
    def size_bytes(self) -> int:
        """Bytes of its arrays."""
        return self.x.nbytes + self.y.nbytes


class ExampleIds(NamedTuple):
    """Ids of the examples of an adaptation. An example keeps its id, and no other gets it.

    Attributes:
        given: of each example, in their order.
        following: that the next example gets.
    """

    given: tuple[int, ...]
    following: int

    @classmethod
    def first(cls, count: int) -> Self:
        """The ids of the examples that an adaptation begins with."""
        return cls(tuple(range(count)), count)

    def only(self, places: Iterable[int]) -> Self:
        """Those of the examples at some places."""
        return self._replace(given=tuple(self.given[place] for place in places))

    def added(self, count: int) -> Self:
        """With so many examples more."""
        end = self.following + count
        return self._replace(given=(*self.given, *range(self.following, end)), following=end)


@dataclass(frozen=True, slots=True)
class AdaptTask:
    """A support set to adapt a model to, as a decoded Adapt request holds it.

    Attributes:
        model: that shall adapt.
        support: the labelled examples.
        classes: their labels by class index; empty for regression.
        steps: inner steps.
        steps_chosen: whether the caller chose them, or they are the model's usual ones.
        ids: of the examples; None for those that an adaptation begins with.
    """

    model: ServedModel
    support: SupportSet
    classes: tuple[str, ...]
    steps: int
    steps_chosen: bool = True
    ids: ExampleIds | None = None


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

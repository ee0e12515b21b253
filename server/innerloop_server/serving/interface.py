"""What a transport may ask of the server, in domain terms.

Nothing here knows of devices, queues or task states, so that the one who answers may be another process.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TypeVar

from innerloop_server.adaptations.adaptation import AdaptationDescription
from innerloop_server.engine.interface import Answers, Array, SupportSet
from innerloop_server.models.model import ModelEntry, ServedModel
from innerloop_server.scheduling.job import Computed, Deadline, Operation

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class AdaptTask:
    """A decoded Adapt request.

    Attributes:
        model: that shall adapt.
        support: the labelled examples.
        classes: their labels by class index; empty for regression.
        steps: inner steps.
    """

    model: ServedModel
    support: SupportSet
    classes: tuple[str, ...]
    steps: int


@dataclass(frozen=True, slots=True)
class PredictTask:
    """A decoded Predict request.

    Attributes:
        model: that the query was checked against.
        owner: identity of the caller.
        adaptation_id: of the adaptation that shall answer.
        query: raw inputs [Q, *input].
    """

    model: ServedModel
    owner: str
    adaptation_id: str
    query: Array


@dataclass(frozen=True, slots=True)
class Keeping:
    """How an adaptation shall be kept.

    Attributes:
        owner: identity that may use it.
        time_to_live: seconds it lives unused.
        request_id: names the request, so that repeating it does not adapt twice; empty when it may.
        fingerprint: of the request's content.
    """

    owner: str
    time_to_live: float
    request_id: str = ""
    fingerprint: bytes = b""


@dataclass(slots=True)
class Timings:
    """Seconds that one call spent waiting and computing."""

    queue: float = 0.0
    adapt: float = 0.0
    predict: float = 0.0

    def count(self, computed: Computed[R]) -> R:
        """Add what one computation took; returns what it computed."""
        self.queue += computed.queue_seconds
        self.adapt += computed.seconds.get(Operation.ADAPT, 0.0)
        self.predict += computed.seconds.get(Operation.PREDICT, 0.0)
        return computed.value


@dataclass(frozen=True, slots=True)
class Kept:
    """The adaptation that an Adapt request made, or had made before."""

    adaptation: AdaptationDescription
    timings: Timings


@dataclass(frozen=True, slots=True)
class Predicted:
    """Answers of an adaptation, and its labels by class index."""

    answers: Answers
    classes: tuple[str, ...]
    timings: Timings


@dataclass(frozen=True, slots=True)
class AdaptPredicted:
    """Answers of a task, and the adaptation that keeps it, if it was to be kept."""

    answers: Answers
    adaptation: AdaptationDescription | None
    timings: Timings


class Serving(ABC):
    """Models, adaptations, and what can be computed with them.

    Whatever computes raises OverloadedError and DeadlinePassedError when it was not computed, and DivergedError when
    the result is not numbers. Cancelling a call drops it, unless it is being computed already.
    """

    @abstractmethod
    async def model(self, name: str) -> ServedModel:
        """The model of that name, for decoding an Adapt request.

        Raises:
            ModelNotFoundError, ModelLoadingError, ModelFailedError: it can't serve.
        """

    @abstractmethod
    async def model_of(self, owner: str, adaptation_id: str) -> ServedModel:
        """The model of the owner's adaptation, for decoding a Predict request.

        Raises what `look` raises, or not yet: whether the adaptation is still there is for `predict` to say.
        """

    @abstractmethod
    async def adapt(self, task: AdaptTask, keeping: Keeping, deadline: Deadline) -> Kept:
        """Adapt a model and keep the result; a request that was made before gets what it made then.

        Raises:
            InvalidRequestError: its id was used before for something else.
            AdaptationTooLargeError: the result does not fit into memory at all.
            ModelNotFoundError, ModelLoadingError, ModelFailedError: the model can't serve any more.
        """

    @abstractmethod
    async def predict(self, task: PredictTask, deadline: Deadline) -> Predicted:
        """Answer queries with an adaptation, and postpone its expiry. Raises what `look` raises."""

    @abstractmethod
    async def adapt_predict(
        self, task: AdaptTask, query: Array, keeping: Keeping | None, deadline: Deadline
    ) -> AdaptPredicted:
        """Adapt a model and answer queries [Q, *input] with the result, which is not kept without a `keeping`.

        Raises what `adapt` raises.
        """

    @abstractmethod
    async def look(self, owner: str, adaptation_id: str) -> AdaptationDescription:
        """The owner's adaptation; looking does not count as use.

        Raises:
            AdaptationNotFoundError: the owner never had it, or deleted it.
            AdaptationEvictedError: it expired or gave way.
        """

    @abstractmethod
    async def adaptations(
        self, owner: str, model: str, before_ns: int | None, limit: int
    ) -> list[AdaptationDescription]:
        """The owner's adaptations, newest first.

        Args:
            owner: whose.
            model: only those of this model, unless empty.
            before_ns: only those created before.
            limit: at most this many.
        """

    @abstractmethod
    async def delete(self, owner: str, adaptation_id: str) -> AdaptationDescription:
        """Forget the owner's adaptation; returns what it was. Raises what `look` raises."""

    @abstractmethod
    async def entries(self) -> list[ModelEntry]:
        """All models by name, whatever their state."""

    @abstractmethod
    async def entry(self, name: str) -> ModelEntry:
        """What is known of a model, whatever its state.

        Raises:
            ModelNotFoundError: nothing.
        """

    @abstractmethod
    async def load(self, name: str) -> ModelEntry:
        """Load a model, unless it is loaded already.

        Raises:
            ModelNotFoundError: there is no such bundle.
            ModelFailedError: the bundle was refused.
        """

    @abstractmethod
    async def unload(self, name: str) -> None:
        """Unload a model and drop its adaptations.

        Raises:
            ModelNotFoundError, ModelLoadingError: there is nothing to unload, or not yet.
        """

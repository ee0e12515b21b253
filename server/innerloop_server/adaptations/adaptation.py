"""A task state kept for its owner."""

import time
from dataclasses import dataclass

from innerloop_server.engine.interface import TaskState
from innerloop_server.models.model import Model


@dataclass(frozen=True, slots=True)
class RequestKey:
    """Names one Adapt request, so that repeating it returns what it made the first time.

    Attributes:
        owner: who asks.
        request_id: made by the client.
    """

    owner: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Learned:
    """What adapting gave, before anyone keeps it.

    Attributes:
        model: that adapted.
        classes: labels in the order of probability vectors; empty for regression.
        support_size: examples adapted on.
        steps: inner steps taken.
        losses: mean support loss before each step.
        state: the task state.
    """

    model: Model
    classes: tuple[str, ...]
    support_size: int
    steps: int
    losses: tuple[float, ...]
    state: TaskState


@dataclass(frozen=True, slots=True)
class AdaptationDescription:
    """An adaptation as its owner may see it.

    Attributes:
        id: unguessable.
        model: name of the model that adapted.
        model_version: of its bundle.
        classes: labels in the order of probability vectors; empty for regression.
        support_size: examples adapted on.
        steps: inner steps taken.
        losses: mean support loss before each step.
        size_bytes: memory its task state takes.
        created_ns: wall-clock time it was made; no two of one server are equal.
        expires_ns: wall-clock time it ends unless it is used before.
    """

    id: str
    model: str
    model_version: str
    classes: tuple[str, ...]
    support_size: int
    steps: int
    losses: tuple[float, ...]
    size_bytes: int
    created_ns: int
    expires_ns: int


@dataclass(eq=False, slots=True)
class Adaptation:
    """A learned task with an id, an owner and an expiry.

    Attributes:
        id: unguessable.
        owner: identity that may use it.
        learned: what is kept.
        created_ns: wall-clock time it was made; no two of one store are equal.
        time_to_live: seconds it lives without being used.
        expires: when it ends, on the store's clock.
        key: of the request that made it, when that had an id.
        fingerprint: of that request's content.
    """

    id: str
    owner: str
    learned: Learned
    created_ns: int
    time_to_live: float
    expires: float
    key: RequestKey | None
    fingerprint: bytes

    @property
    def size_bytes(self) -> int:
        """Memory its task state takes."""
        return self.learned.state.size_bytes

    def describe(self) -> AdaptationDescription:
        """What its owner may see."""
        learned = self.learned
        return AdaptationDescription(
            id=self.id,
            model=learned.model.name,
            model_version=learned.model.description.version,
            classes=learned.classes,
            support_size=learned.support_size,
            steps=learned.steps,
            losses=learned.losses,
            size_bytes=self.size_bytes,
            created_ns=self.created_ns,
            expires_ns=time.time_ns() + int((self.expires - time.monotonic()) * 1e9),
        )

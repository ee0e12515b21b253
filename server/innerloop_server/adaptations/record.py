"""The record of an adaptation in the store."""

import time
from dataclasses import dataclass

from innerloop_server.domain.adaptations import Adaptation, RequestKey
from innerloop_server.engine.interface import AdaptedTask, LoadedModel


@dataclass(eq=False, slots=True)
class AdaptationRecord:
    """A task state kept for its owner.

    Attributes:
        id: unguessable.
        owner: identity that may use it.
        model: that adapted.
        classes: labels in the order of probability vectors; empty for regression.
        support_size: examples adapted on.
        steps: inner steps taken.
        adapted: the task state, and the mean support loss before each step.
        created_ns: wall-clock time it was made; no two of one store are equal.
        time_to_live: seconds it lives without being used.
        expires: when it ends, on the store's clock.
        key: of the request that made it, when that had an id.
        fingerprint: of that request's content.
    """

    id: str
    owner: str
    model: LoadedModel
    classes: tuple[str, ...]
    support_size: int
    steps: int
    adapted: AdaptedTask
    created_ns: int
    time_to_live: float
    expires: float
    key: RequestKey | None
    fingerprint: bytes

    @property
    def size_bytes(self) -> int:
        """Memory that its task state takes."""
        return self.adapted.state.size_bytes

    def describe(self) -> Adaptation:
        """The part of the record that its owner may see."""
        return Adaptation(
            id=self.id,
            model=self.model.name,
            model_version=self.model.description.version,
            classes=self.classes,
            support_size=self.support_size,
            steps=self.steps,
            losses=self.adapted.losses,
            size_bytes=self.size_bytes,
            created_ns=self.created_ns,
            expires_ns=time.time_ns() + int((self.expires - time.monotonic()) * 1e9),
        )

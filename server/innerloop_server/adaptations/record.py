"""The record of an adaptation: all that is known of it but its task state."""

from dataclasses import dataclass

import msgspec

from innerloop_server.domain.adaptations import Adaptation

NEVER = 2**63 - 1
"""Expiry, in nanoseconds of the wall clock, of an adaptation that has none: the last one that a store can hold."""


class AdaptationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Facts about one revision of an adaptation that never change. Fields that are added later need defaults.

    Attributes:
        id: unguessable.
        owner: identity that may use it.
        revision: counts the changes of its content; the first is 1.
        model: name of the model that adapted.
        model_digest: of the bundle that adapted; another bundle of that name can't use its state.
        model_version: short form of that digest.
        classes: labels in the order of probability vectors; empty for regression.
        support_size: examples adapted on.
        steps: inner steps taken.
        losses: mean support loss before each step.
        size_bytes: memory that its task state takes.
        created_ns: wall-clock time it was made; no two that one server made are equal.
        time_to_live: seconds it lives without being used; zero for ever.
        request_id: of the request that made it; empty when it had none.
        fingerprint: of that request's content.
        example_weights: what each support example counted; empty if all of a class counted the same.
    """

    id: str
    owner: str
    revision: int
    model: str
    model_digest: str
    model_version: str
    classes: tuple[str, ...]
    support_size: int
    steps: int
    losses: tuple[float, ...]
    size_bytes: int
    created_ns: int
    time_to_live: float
    request_id: str = ""
    fingerprint: bytes = b""
    example_weights: tuple[float, ...] = ()

    def expiry(self, now_ns: int) -> int:
        """When it ends if it is used now and never again."""
        return now_ns + int(self.time_to_live * 1e9) if self.time_to_live else NEVER


@dataclass(frozen=True, slots=True)
class KeptRecord:
    """A record, and when it expires unless it is used before, in nanoseconds of the wall clock."""

    record: AdaptationRecord
    expires_ns: int

    def describe(self, *, listed: bool = False) -> Adaptation:
        """The part of it that its owner may see; as one of many in a list, without the weights of examples."""
        record = self.record
        return Adaptation(
            id=record.id,
            model=record.model,
            model_version=record.model_version,
            classes=record.classes,
            support_size=record.support_size,
            steps=record.steps,
            losses=record.losses,
            size_bytes=record.size_bytes,
            created_ns=record.created_ns,
            expires_ns=None if self.expires_ns == NEVER else self.expires_ns,
            revision=record.revision,
            example_weights=() if listed else record.example_weights,
        )

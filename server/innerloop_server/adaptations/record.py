"""The record of an adaptation: all that is known of it but its task state."""

from dataclasses import dataclass
from hashlib import blake2b
from secrets import token_bytes

import msgspec

from innerloop_server.domain.adaptations import Adaptation, RequestKey

NEVER = 2**63 - 1
"""Expiry, in nanoseconds of the wall clock, of an adaptation that has none: the last one that a store can hold."""

UPDATES_KNOWN = 64
"""Updates of an adaptation whose requests may be repeated, the latest ones; each takes about 45 bytes of the record."""

KEY_BYTES = 16


class AppliedUpdate(msgspec.Struct, frozen=True, array_like=True):
    """An update that was carried out, so that repeating its request changes nothing more.

    Attributes:
        key: of the request's id, see `key_of`; random where it had none, so that no two servers take their updates for
            one and the same.
        fingerprint: of the request's content.
        first_id: id of the first example that it added.
        added: number of those, if they are kept.
    """

    key: bytes
    fingerprint: bytes
    first_id: int
    added: int

    @property
    def example_ids(self) -> tuple[int, ...]:
        """Ids of the examples that it added."""
        return tuple(range(self.first_id, self.first_id + self.added))


def key_of(request_id: str) -> bytes:
    """What is remembered of the id of an update's request; random bytes where it has none."""
    return blake2b(request_id.encode(), digest_size=KEY_BYTES).digest() if request_id else token_bytes(KEY_BYTES)


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
        forget_examples: whether its owner forbids to keep its examples; None where only the recipe tells, which is
            there or not.
        updates: the latest ones that were carried out, oldest first.
        next_id: id that the next example gets; zero where it is `support_size`.
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
    forget_examples: bool | None = None
    updates: tuple[AppliedUpdate, ...] = ()
    next_id: int = 0

    def applied(self, request_id: str) -> AppliedUpdate | None:
        """The update that a request has made already."""
        key = key_of(request_id)
        return next((update for update in self.updates if update.key == key), None)

    @property
    def request(self) -> RequestKey:
        """The request that made it; means nothing where `request_id` is empty."""
        return RequestKey(self.owner, self.request_id)

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

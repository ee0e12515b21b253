"""Who makes a call, and how urgent it is."""

from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from typing import Self


class Scope(StrEnum):
    """Scope of a credential: the kind of call that it allows."""

    PREDICT = "predict"
    ADAPT = "adapt"
    ADMIN = "admin"


CALLERS_SCOPES = frozenset({Scope.PREDICT, Scope.ADAPT})
"""The scopes of callers whose credentials name none: all but that of admins."""


class Priority(IntEnum):
    """How urgent a request is among those of the same caller; a higher number goes first."""

    BATCH = 1
    NORMAL = 2
    INTERACTIVE = 3


@dataclass(frozen=True, slots=True)
class OwnerLimits:
    """How much each caller may use; None for no limit.

    Attributes:
        requests_per_second: requests that compute something.
        examples_per_second: support examples and queries of these requests.
        waiting: requests of one model that wait for the device.
        adaptations: that are kept, in memory and store together.
    """

    requests_per_second: float | None = None
    examples_per_second: float | None = None
    waiting: int | None = None
    adaptations: int | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call.

    Attributes:
        owner: identity that the caller's adaptations belong to.
        address: where it calls from, if nothing else tells callers apart.
        scopes: what it may do.
        limits: its own, where its credential says some; they stand in place of those of all callers.
        priority: of this call; the same caller may make others.
    """

    owner: str
    address: str = ""
    scopes: frozenset[Scope] = CALLERS_SCOPES
    limits: OwnerLimits = OwnerLimits()
    priority: Priority = field(default=Priority.NORMAL, compare=False)

    @property
    def account(self) -> str:
        """Name under which the device's time is shared: callers of one account have one share."""
        return self.address or self.owner

    def with_priority(self, priority: Priority) -> Self:
        """The same caller, who asks for something of this priority."""
        return self if priority is self.priority else replace(self, priority=priority)

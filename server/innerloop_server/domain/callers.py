"""Who makes a call."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call.

    Attributes:
        owner: identity that the caller's adaptations belong to.
    """

    owner: str

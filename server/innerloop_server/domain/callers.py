"""Who makes a call."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call.

    Attributes:
        owner: identity that the caller's adaptations belong to.
        address: where it calls from, if nothing else tells callers apart.
    """

    owner: str
    address: str = ""

    @property
    def account(self) -> str:
        """Whose share of the device's time its requests use."""
        return self.address or self.owner

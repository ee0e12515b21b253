"""Who makes a call."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call.

    Attributes:
        owner: identity that the caller's adaptations belong to.
        address: where it calls from, if nothing else tells callers apart.
        admin: whether it may load and unload models, where the server allows that at all.
    """

    owner: str
    address: str = ""
    admin: bool = False

    @property
    def account(self) -> str:
        """Whose share of the device's time its requests use."""
        return self.address or self.owner


@dataclass(frozen=True, slots=True)
class OwnerLimits:
    """How much each caller may use; None for no limit.

    Attributes:
        requests_per_second: requests that compute something.
        examples_per_second: support examples and queries of these requests.
        waiting: requests of one model that wait for the device.
    """

    requests_per_second: float | None = None
    examples_per_second: float | None = None
    waiting: int | None = None

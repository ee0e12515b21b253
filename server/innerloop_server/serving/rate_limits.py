"""Limits on how much of the server's time a caller asks for: requests and examples a second."""

import time
from collections.abc import Callable

from innerloop_server.domain.callers import Caller, OwnerLimits
from innerloop_server.domain.errors import OverloadedError

BURST_SECONDS = 1.0
"""A caller that has paused may send at once what its limit allows in so many seconds."""

MOST_IDLE = 1024
"""Most callers that are remembered beyond twice those that matter."""


class RateLimit:
    """So many tokens a second for each account, by the generic cell rate algorithm (ITU-T I.371).

    One number for each account says all: the moment until which its tokens are spent.

    Args:
        clock: seconds.

    Example:
        >>> limit = RateLimit(clock=lambda: 0.0)
        >>> for _ in range(10):
        ...     limit.spend("me", 1, rate=10.0)
        >>> limit.wait("me"), limit.wait("another")
        (0.0, 0.0)
        >>> limit.spend("me", 5, rate=10.0)
        >>> limit.wait("me")
        0.5
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._spent_until: dict[str, float] = {}
        self._most = MOST_IDLE

    def wait(self, account: str) -> float:
        """Seconds until an account may spend again; zero if it may now."""
        spent_until = self._spent_until.get(account)
        return 0.0 if spent_until is None else max(spent_until - self._clock() - BURST_SECONDS, 0.0)

    def spend(self, account: str, tokens: int, rate: float | None) -> None:
        """Spend tokens. What a single request needs beyond a burst, later ones wait for.

        Args:
            account: whose tokens.
            tokens: how many.
            rate: tokens that the account may spend a second; None for no limit.
        """
        if rate is None:
            return
        now = self._clock()
        self._spent_until[account] = max(self._spent_until.get(account, now), now) + tokens / rate
        if len(self._spent_until) > self._most:
            self._spent_until = {each: until for each, until in self._spent_until.items() if until > now}
            self._most = 2 * len(self._spent_until) + MOST_IDLE


class RateLimits:
    """The limits of all callers.

    Args:
        limits: of each of them that has none of its own.
        clock: seconds.
    """

    def __init__(self, limits: OwnerLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._requests = RateLimit(clock)
        self._examples = RateLimit(clock)

    @property
    def waiting(self) -> int | None:
        """Most requests of one model that a caller without a limit of its own may have waiting; None for no limit."""
        return self._limits.waiting

    def spend(self, caller: Caller, examples: int) -> None:
        """Count a request against its caller's limits.

        Args:
            caller: who asks.
            examples: support examples and queries of the request.

        Raises:
            OverloadedError: the caller has reached a limit.
        """
        for limit, what in ((self._requests, "requests"), (self._examples, "examples")):
            if wait := limit.wait(caller.account):
                raise OverloadedError(wait, f"you send more {what} a second than the server allows each caller")
        own, usual = caller.limits, self._limits
        self._requests.spend(caller.account, 1, own.requests_per_second or usual.requests_per_second)
        self._examples.spend(caller.account, examples, own.examples_per_second or usual.examples_per_second)

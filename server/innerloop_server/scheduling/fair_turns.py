"""Whose turn it is: whoever has had least of the device's time is next (start-time fair queueing).

The rule (Goyal, Vin and Cheng, 1996, "Start-time fair queueing") is stated once, by `VirtualTime`. Models and
operations take turns batch by batch (`FairTurns`), accounts request by request (`Accounts`), since they share batches.
"""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

K = TypeVar("K")
T = TypeVar("T")

MOST_IDLE = 1024
"""Most accounts that are remembered beyond twice those that matter: owners come and go, and are not ours to count."""


class VirtualTime:
    """The device's time as those see it who share it: each turn begins at what its owner has had of it before.

    One that comes back after a pause begins where the others are, so that nobody saves time up; or where it was, if
    that is later, so that nobody gets rid of what it has had by leaving.

    Attributes:
        reached: where the latest turn began.
    """

    __slots__ = ("reached",)

    def __init__(self) -> None:
        self.reached = 0.0

    def start(self, had: float) -> float:
        """Where the next turn of one begins who has had so many seconds.

        >>> time = VirtualTime()
        >>> time.begin(5.0)
        >>> time.start(3.0), time.start(8.0)
        (5.0, 8.0)
        """
        return max(had, self.reached)

    def begin(self, start: float) -> None:
        """Record that a turn that starts there begins."""
        self.reached = max(self.reached, start)


class _Share(Generic[T]):
    """Waiting work of one of those who take turns, and the device's time that it has had.

    Attributes:
        queue: what waits.
        had: seconds of the device, divided by its weight.
    """

    def __init__(self, queue: T) -> None:
        self.queue = queue
        self.had = 0.0


class FairTurns(Generic[K, T]):
    """Those who take turns batch by batch, and what each of them lets wait.

    Args:
        make_queue: makes what a newcomer lets wait.

    Attributes:
        waiting: those of whom something waits.
    """

    def __init__(self, make_queue: Callable[[], T]) -> None:
        self._make_queue = make_queue
        self._known: WeakKeyDictionary[K, _Share[T]] = WeakKeyDictionary()
        self._time = VirtualTime()
        self.waiting: dict[K, _Share[T]] = {}

    def join(self, key: K) -> T:
        """The queue of `key`, which takes turns from now on."""
        if key not in self.waiting:
            share = self.waiting[key] = self._known.setdefault(key, _Share(self._make_queue()))
            share.had = self._time.start(share.had)
        return self.waiting[key].queue

    def in_turn(self) -> list[tuple[K, T]]:
        """The waiting keys and their queues, in the order of their turns."""
        waiting = sorted(self.waiting.items(), key=lambda item: item[1].had)
        return [(key, share.queue) for key, share in waiting]

    def begin(self, key: K) -> None:
        """Record that the turn of `key`, which waits, begins."""
        self._time.begin(self.waiting[key].had)

    def charge(self, key: K, seconds: float) -> T:
        """Add to the device's time that `key`, which has joined before, has had; returns its queue."""
        self._known[key].had += seconds
        return self.queue_of(key)

    def queue_of(self, key: K) -> T:
        """The queue of `key`, which has joined before."""
        return self._known[key].queue

    def find(self, key: K) -> T | None:
        """The queue of `key` if it has joined before."""
        share = self._known.get(key)
        return None if share is None else share.queue

    def leave(self, key: K) -> None:
        """Record that nothing of `key` waits any more."""
        del self.waiting[key]


class Accounts:
    """The turns of accounts, which are charged for a request when it is taken.

    What still waits is charged to nobody, so that requests may be dropped, or go in any order within their account,
    and nobody else's turn changes.

    >>> accounts = Accounts()
    >>> accounts.join("busy")
    >>> for _ in range(3):
    ...     accounts.begin(accounts.turn("busy"))
    ...     accounts.charge("busy", 0.5)
    >>> accounts.join("quiet")
    >>> accounts.turn("busy"), accounts.turn("quiet")
    (1.5, 1.0)
    """

    def __init__(self) -> None:
        self._time = VirtualTime()
        self._had: dict[Hashable, float] = {}
        self._most = MOST_IDLE

    def join(self, account: Hashable) -> None:
        """Record that an account, of which nothing has waited, begins to wait."""
        self._had[account] = self._time.start(self._had.get(account, 0.0))
        if len(self._had) > self._most:
            self._forget_idle()

    def turn(self, account: Hashable) -> float:
        """Virtual time at which the turn of an account's next request begins: the account with the lowest is next."""
        return self._had.get(account, self._time.reached)

    def lead(self, account: Hashable) -> float:
        """Seconds that an account has had more than whoever is next."""
        return max(self._had.get(account, 0.0) - self._time.reached, 0.0)

    def begin(self, turn: float) -> None:
        """Record that a batch is taken whose first request had this turn."""
        self._time.begin(turn)

    def charge(self, account: Hashable, seconds: float) -> None:
        """Add to what an account has had, or take away what a request took less than it was charged for."""
        if account in self._had:
            self._had[account] += seconds

    def _forget_idle(self) -> None:
        """Forget accounts that would begin where the others are anyway, so that forgetting them changes nothing."""
        self._had = {account: had for account, had in self._had.items() if had > self._time.reached}
        self._most = 2 * len(self._had) + MOST_IDLE

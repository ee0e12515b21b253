"""Turns of decoding: what decodes something large does so when it is its turn, one image or recording at a time.

A file of 50 kB can unfold to 50 million pixels, which take seconds and hundreds of megabytes. So few are decoded at a
time, only one of them a large one, and callers take turns by what they have had decoded, however many requests and
files each of them sends.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass

LARGE = 4_000_000
"""Pixels, samples or bytes above which something is large: it takes tens of milliseconds."""


class GoneError(Exception):
    """Nobody waits for what was to be decoded any more."""


@dataclass(eq=False)
class _Ticket:
    """Something that waits for its turn: the virtual time of its start, and its cost."""

    start: float
    cost: int


class Turns:
    """Gives turns to threads, by start-time fair queueing over accounts.

    Args:
        places: how many have their turn at the same time. Of large ones there is always a place fewer, but one at
            least.
    """

    def __init__(self, places: int) -> None:
        self._places, self._places_of_large = places, max(places - 1, 1)
        self._changed = threading.Condition()
        self._waiting: list[_Ticket] = []
        self._taken = self._taken_by_large = 0
        self._now = 0.0  # virtual time: the start of what had its turn last
        self._next_start: dict[str, float] = {}  # of each account that has used its share ahead of time

    @contextmanager
    def turn(self, account: str, cost: int, gone: Callable[[], bool]) -> Iterator[None]:
        """Wait for a turn, and have it inside this context.

        Args:
            account: whose turn it is.
            cost: pixels, samples or bytes.
            gone: whether nobody waits for the result any more.

        Raises:
            GoneError: nobody does.
        """
        large = cost > LARGE
        with self._changed:
            ticket = self._ticket(account, cost)
            try:
                self._changed.wait_for(lambda: gone() or self._next() is ticket)
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
            if gone():
                raise GoneError
            self._now = max(self._now, ticket.start)
            self._taken += 1
            self._taken_by_large += large
        try:
            yield
        finally:
            with self._changed:
                self._taken -= 1
                self._taken_by_large -= large
                self._changed.notify_all()

    def look(self) -> None:
        """Have those that wait look whether they are gone."""
        with self._changed:
            self._changed.notify_all()

    def _ticket(self, account: str, cost: int) -> _Ticket:
        ahead = {each: start for each, start in self._next_start.items() if start > self._now}
        ticket = _Ticket(ahead.get(account, self._now), cost)
        ahead[account] = ticket.start + cost
        self._next_start = ahead
        self._waiting.append(ticket)
        return ticket

    def _next(self) -> _Ticket | None:
        """Whose turn it is now, if there is a place."""
        if self._taken >= self._places:
            return None
        fits = self._taken_by_large < self._places_of_large
        return min(
            (ticket for ticket in self._waiting if fits or ticket.cost <= LARGE),
            key=lambda ticket: ticket.start,
            default=None,
        )


def turn(cost: int) -> AbstractContextManager[None]:
    """The turn to decode so many pixels, samples or bytes, on a thread for whose work there are turns (`in_turn`).

    Raises:
        GoneError: nobody waits for them any more.
    """
    take = _take.get()
    return nullcontext() if take is None else take(cost)


@contextmanager
def in_turn(take: Callable[[int], AbstractContextManager[None]]) -> Iterator[None]:
    """Have `turn` wait for a turn inside this context."""
    before = _take.set(take)
    try:
        yield
    finally:
        _take.reset(before)


_take: ContextVar[Callable[[int], AbstractContextManager[None]] | None] = ContextVar("take", default=None)

"""Queries of a caller that have no answer yet, in order, and how long to wait for the first of them."""

import time
from dataclasses import dataclass, field

from innerloop.errors import InnerloopError
from innerloop.examples import EncodedExamples
from innerloop.predictions import Predictions


@dataclass(eq=False, slots=True)
class PendingQuery:
    """One query of the caller.

    Attributes:
        sequence: its place among all queries, counted from 0.
        query: the query, ready to be sent.
        asked: when it was last sent, in seconds of the monotonic clock.
        answer: its predictions, or the error that it was answered with; None until there is an answer.
    """

    sequence: int
    query: EncodedExamples
    asked: float = field(default_factory=time.monotonic)
    answer: Predictions | InnerloopError | None = None


class PendingQueries:
    """Queries whose answers the caller does not have yet; they outlive the stream that they were asked on.

    One thread adds queries while another takes answers: each method changes what both see in a single step.

    Example:
        >>> pending = PendingQueries()
        >>> first, second = pending.add("a"), pending.add("b")
        >>> second.answer = "answer to b"
        >>> pending.unanswered(0) is pending.oldest is first
        True
    """

    def __init__(self) -> None:
        self._queries: dict[int, PendingQuery] = {}
        self._first = 0
        self._next = 0

    @property
    def oldest(self) -> PendingQuery | None:
        """The query whose answer the caller gets next."""
        return self._queries.get(self._first)

    def add(self, query: EncodedExamples) -> PendingQuery:
        """The caller's next query."""
        pending = PendingQuery(self._next, query)
        self._queries[pending.sequence] = pending
        self._next += 1
        return pending

    def close_oldest(self) -> None:
        """Forget the oldest query, because the caller gets its answer."""
        del self._queries[self._first]
        self._first += 1

    def find(self, sequence: int) -> PendingQuery | None:
        """The query of that place, while the caller has no answer to it."""
        return self._queries.get(sequence)

    def unanswered(self, place: int) -> PendingQuery | None:
        """The first query without an answer at or after a place; None when there is none yet."""
        found = (self._queries.get(sequence) for sequence in range(max(place, self._first), self._next))
        return next((query for query in found if query is not None and query.answer is None), None)


class Patience:
    """How long to wait for an answer: counted from the question, or from when the caller began to wait if later.

    Attributes:
        ended: whether the answer did not come in time.
    """

    def __init__(self, pending: PendingQueries, seconds: float) -> None:
        self.ended = False
        self._pending = pending
        self._seconds = seconds
        self._since: float | None = None

    @property
    def began(self) -> float:
        """When the wait that ended began, on the monotonic clock."""
        return time.monotonic() - self._seconds

    def begin(self) -> None:
        """Note that the caller waits from now on."""
        self._since = time.monotonic()

    def pause(self) -> None:
        """Note that the caller does not wait any more."""
        self._since = None

    def left(self) -> float:
        """Seconds after which it is worth looking again; zero when it has ended."""
        query, since = self._pending.oldest, self._since
        if query is None or since is None:
            return self._seconds
        left = max(query.asked, since) + self._seconds - time.monotonic()
        self.ended = left <= 0
        return max(left, 0.0)

"""Splits queries into requests that a server takes. Queries don't depend on each other, so the answers are the same."""

from collections.abc import Iterator

from innerloop.examples import Examples
from innerloop.models import TaskLimits

SMALL_COUNT = 64
"""Most queries that are sent in one request without asking the server for its limits."""

SMALL_BYTES = 2**20
"""The same for their bytes, all together."""

DEFAULT_REQUEST_BYTES = 4 * 2**20
"""Largest request to a server that doesn't say what it takes: what gRPC servers take unless they are told otherwise."""

_ROOM_BYTES = 4096
"""Bytes left free in each request for ids, shapes and options."""


def is_small(query: Examples) -> bool:
    """Whether any server takes so many queries in one request."""
    return len(query) <= SMALL_COUNT and sum(query.sizes) <= SMALL_BYTES


def split(query: Examples, limits: TaskLimits, beside: int) -> list[Examples]:
    """Queries in order, in parts that are as large as the limits allow.

    A query that is too large by itself is a part of its own, for the server to refuse.

    Args:
        query: at least one.
        limits: of the model.
        beside: bytes that each request carries besides.

    Example:
        >>> import numpy as np
        >>> from innerloop.examples import Names
        >>> query = Examples(np.zeros((25, 4), np.uint8), Names("query"))
        >>> limits = TaskLimits(*[0] * 10)._replace(max_query=10)
        >>> [len(part) for part in split(query, limits, 0)]
        [10, 10, 5]
    """
    room = (limits.max_request_bytes or DEFAULT_REQUEST_BYTES) - _ROOM_BYTES - beside
    ends = list(_ends(query.sizes, limits.max_query or len(query), room))
    return [query.part(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def _ends(sizes: list[int], most: int, room: int) -> Iterator[int]:
    """The position at which each part ends."""
    count = held = 0
    for position, size in enumerate(sizes):
        if count and (count == most or held + size > room):
            yield position
            count = held = 0
        count += 1
        held += size
    yield len(sizes)

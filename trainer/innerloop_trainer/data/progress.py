"""Progress of what takes a while before training begins, for whoever wants to show it.

Who shows it is ambient, a context variable: it changes no result, and passing it down would add an argument to every
data source and decoder.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

Track = Callable[[Sequence[Any], str], Iterable[Any]]
"""Hands out items one by one, and shows under a title how many are left."""

_track: ContextVar[Track] = ContextVar("track", default=lambda items, _: items)


def tracked(items: Sequence[T], title: str) -> Iterable[T]:
    """The items one by one, shown by what `tracking_by` was given."""
    return _track.get()(items, title)


@contextmanager
def tracking_by(track: Track) -> Iterator[None]:
    """Show progress by `track` inside this context."""
    token = _track.set(track)
    try:
        yield
    finally:
        _track.reset(token)

"""Reports the progress of reading and encoding data, so that a command can show it.

The function that shows it is a context variable, since it changes no result, and passing it down would add an argument
to every data source and decoder.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

Track = Callable[[Sequence[Any], str], Iterable[Any]]
"""A function that gives items one by one, and shows under a title how many are left."""

_track: ContextVar[Track] = ContextVar("track", default=lambda items, _: items)


def tracked(items: Sequence[T], title: str) -> Iterable[T]:
    """Give the items one by one, and report them to the function given to `tracking_by`."""
    return _track.get()(items, title)


@contextmanager
def tracking_by(track: Track) -> Iterator[None]:
    """Show progress by `track` inside this context."""
    token = _track.set(track)
    try:
        yield
    finally:
        _track.reset(token)

"""Reports the progress of long work, such as reading data or an evaluation, so that a command can show it.

What shows it is a context variable, since it changes no result, and passing it down would add an argument to every data
source, decoder and evaluation.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

Advance = Callable[[int], None]
"""Tells that so many more units of the work are done."""

Show = Callable[[str, int, str], AbstractContextManager[Advance]]
"""Shows work from its beginning to its end; takes a title, the number of units and what they are, in the plural."""


@contextmanager
def _unseen(title: str, total: int, unit: str) -> Iterator[Advance]:
    del title, total, unit
    yield lambda _: None


_show: ContextVar[Show] = ContextVar("show", default=_unseen)


def progress_of(title: str, total: int, unit: str) -> AbstractContextManager[Advance]:
    """A context in which work is reported by the function that it gives.

    Args:
        title: what the work is, for example "Decoding photos".
        total: number of units that it has.
        unit: what they are, in the plural, for example "files".

    >>> with progress_of("Decoding photos", 3, "files") as advance:
    ...     for _ in range(3):
    ...         advance(1)
    """
    return _show.get()(title, total, unit)


@contextmanager
def showing_by(show: Show | None) -> Iterator[None]:
    """Show the progress of work by `show` inside this context; None shows nothing."""
    token = _show.set(show or _unseen)
    try:
        yield
    finally:
        _show.reset(token)

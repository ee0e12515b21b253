"""Progress of what takes a while before training begins."""

import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def watched(items: Sequence[T], title: str) -> Iterable[T]:
    """The items one by one, with a progress bar if someone watches."""
    return track(items, title, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())

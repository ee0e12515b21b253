"""Standard output and standard error for commands, which may fail without ending them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, TextIO, cast

from rich.console import Console


class LastingOutput:
    """Standard output or error, whose own errors never end a computation.

    Text for a closed terminal, a pipe without a reader or a log on a full disk is dropped. Characters that the output's
    encoding lacks become escapes, so that names stay distinct.

    Args:
        name: "stdout" or "stderr"; what `sys` has under this name is asked for at each call, since it may be replaced.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def _stream(self) -> TextIO:
        stream: TextIO = getattr(sys, self._name)
        return stream

    def write(self, text: str) -> int:
        """Write text, and drop it if that fails."""
        encoding = self._stream.encoding or "utf-8"
        with suppress(OSError):
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        """Flush, and go on if that fails."""
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _console(name: str) -> Console:
    return Console(file=cast("IO[str]", LastingOutput(name)), markup=False, emoji=False, highlight=False)


console = _console("stdout")
"""Prints results, on standard output."""

notes = _console("stderr")
"""Prints the progress of reading and measuring, on standard error, apart from results."""


@contextmanager
def speaking(*, leads: bool) -> Iterator[None]:
    """Print inside this context only in the process that leads."""
    before = console.quiet, notes.quiet
    console.quiet = notes.quiet = not leads
    try:
        yield
    finally:
        console.quiet, notes.quiet = before

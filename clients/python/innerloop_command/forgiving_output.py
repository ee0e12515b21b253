"""Keeps standard output and error from ending a command whose work is done or half done."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO


@contextmanager
def forgiving_output() -> Iterator[list[OSError]]:
    r"""Let whatever is wrong with standard output or error be no reason for a command to end.

    Characters that their encoding does not have are written as escapes such as `\u732b`. Where the reader has gone,
    the terminal is lost or the disk is full, the command goes on without them.

    Yields:
        the first error in writing to standard output, once there is one.
    """
    failures: list[OSError] = []
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _forgiving(sys.stdout, failures), _forgiving(sys.stderr, [])
    try:
        yield failures
    finally:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, _ForgivingStream):
                stream.release()
        sys.stdout, sys.stderr = streams


class _ForgivingStream(io.TextIOWrapper):
    """Writes where another stream does, and keeps errors in a list instead of raising them."""

    def __init__(self, stream: io.TextIOWrapper, failures: list[OSError]) -> None:
        stream.flush()
        super().__init__(
            stream.buffer,
            stream.encoding,
            "backslashreplace",
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        self._failures = failures

    def write(self, text: str) -> int:
        """Write, or do without."""
        try:
            return super().write(text)
        except OSError as error:
            self._note(error)
            return len(text)

    def flush(self) -> None:
        """Flush, or do without."""
        try:
            super().flush()
        except OSError as error:
            self._note(error)

    def release(self) -> None:
        """Leave the buffer to the other stream; what could not be written is given up."""
        descriptor = None
        with suppress(OSError):  # streams of tests have none
            descriptor = self.fileno()
        self.detach()
        if self._failures and descriptor is not None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)

    def _note(self, error: OSError) -> None:
        """Keep the first error; a command that goes on for days may meet millions."""
        if not self._failures:
            self._failures.append(error)


def _forgiving(stream: TextIO, failures: list[OSError]) -> TextIO:
    """A stream that forgives, unless it is closed or a stand-in."""
    return _ForgivingStream(stream, failures) if isinstance(stream, io.TextIOWrapper) else stream

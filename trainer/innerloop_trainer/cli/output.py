"""Where commands print: standard output, whatever becomes of it."""

import sys
from contextlib import suppress
from typing import IO, Any, cast

from rich.console import Console


class LastingOutput:
    """Standard output as it is at the time, whose faults end nothing that is computed.

    What is written to a terminal that was closed, a pipe whose reader is gone or a log on a full disk is dropped.
    Characters that the output's encoding lacks become escapes, which still tell one name from another.
    """

    def write(self, text: str) -> int:
        """Write what can be written."""
        encoding = sys.stdout.encoding or "utf-8"
        with suppress(OSError):
            sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        with suppress(OSError):
            sys.stdout.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stdout, name)


console = Console(file=cast("IO[str]", LastingOutput()), markup=False, emoji=False, highlight=False)

"""Standard output for commands, which may fail without ending them."""

import sys
from contextlib import suppress
from typing import IO, Any, cast

from rich.console import Console


class LastingOutput:
    """Standard output whose errors never end a computation.

    Text for a closed terminal, a pipe without a reader or a log on a full disk is dropped. Characters that the output's
    encoding lacks become escapes, so that names stay distinct.
    """

    def write(self, text: str) -> int:
        """Write text, and drop it if that fails."""
        encoding = sys.stdout.encoding or "utf-8"
        with suppress(OSError):
            sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        """Flush, and go on if that fails."""
        with suppress(OSError):
            sys.stdout.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stdout, name)


console = Console(file=cast("IO[str]", LastingOutput()), markup=False, emoji=False, highlight=False)

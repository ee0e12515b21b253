"""Ctrl-C, a request to terminate, or a lost terminal: a request to stop at the next good moment."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130
"""Exit status of a command that was stopped early, as shells have it after Ctrl-C."""

_REQUESTS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Windows has no SIGHUP, the signal of a terminal that went away."""


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """A function that tells whether a request to stop came; Ctrl-C after one ends the program at once.

    A signal that was ignored before still is: `nohup` protects from a lost terminal.
    """
    caught: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        caught.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    heeded = [number for number in _REQUESTS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heeded}
    try:
        yield lambda: bool(caught)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""Turns Ctrl-C, SIGTERM and a lost terminal into a request to stop at the next good moment."""

import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import typer

from innerloop_trainer.cli.output import console

INTERRUPTED = 130
"""Exit status of a command that was stopped early; shells use the same one after Ctrl-C."""

_REQUESTS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Signals that ask a command to stop. SIGHUP means that the terminal is lost; Windows lacks it."""


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Give a function that tells whether a request to stop came. A second Ctrl-C ends the program at once.

    Signals that were ignored before stay ignored, so that `nohup` protects from a lost terminal.
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


@contextmanager
def ending_as_by_ctrl_c() -> Iterator[None]:
    """End at SIGTERM and at the loss of the terminal as at Ctrl-C, so that temporary files are removed."""

    def end(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise KeyboardInterrupt

    heeded = [number for number in _REQUESTS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, end) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_interrupted(*further: str) -> NoReturn:
    """End a command that was stopped with everything saved, and say how to go on.

    Args:
        further: options that the same command needs to go on.
    """
    command = shlex.join(["innerloop", *sys.argv[1:], *further])
    console.print(f"Stopped; everything is saved. Continue with:\n  {command}", soft_wrap=True)
    raise typer.Exit(INTERRUPTED)

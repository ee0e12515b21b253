"""Coroutines that wait for sockets and for nothing else: a thread runs them to their end, an event loop in steps."""

from asyncio import AbstractEventLoop
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from socket import socket
from types import coroutine
from typing import Any, TypeVar

T = TypeVar("T")

Waiting = Coroutine[socket, None, T]


@coroutine
def readable(end: socket) -> Generator[socket, None, None]:
    """Wait until a socket has something to read: awaited right before reading from it, which blocks."""
    yield end


def finish(waiting: Waiting[T]) -> T:
    """Run to the end on this thread, which blocks where the coroutine reads."""
    try:
        while True:
            waiting.send(None)
    except StopIteration as end:
        result: T = end.value
        return result


def go_on(
    loop: AbstractEventLoop,
    waiting: Waiting[T],
    ended: Callable[[T], object],
    failed: Callable[[Exception], object],
) -> None:
    """Run on an event loop, which does other things meanwhile.

    The first step is taken at once, and the others as soon as there is something to read: a task would take each of
    them a turn of the loop later.

    Args:
        loop: that runs here.
        waiting: a coroutine at its beginning or where it waits.
        ended: is given its result.
        failed: is given what it raised.
    """
    then: Callable[[], object]
    try:
        end = waiting.send(None)
    except StopIteration as stop:
        then = partial(ended, stop.value)
    except Exception as error:
        then = partial(failed, error)
    else:
        then = partial(loop.add_reader, end, _wake, loop, end, waiting, ended, failed)
    then()  # here: what it raises has nothing to do with what ended above


def _wake(loop: AbstractEventLoop, end: socket, *rest: Any) -> None:
    loop.remove_reader(end)
    go_on(loop, *rest)

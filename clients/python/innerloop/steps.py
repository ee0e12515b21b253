"""Work of a client, written once for both kinds of clients.

A generator yields operations one by one and is sent what each gives; it returns the result. The operations are those of
its connection: plain functions of a synchronous one, functions that return awaitables of an asynchronous one. What they
raise is raised in the generator where it waits.
"""

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")

Steps: TypeAlias = Generator[Callable[[], Any], Any, T]
"""Operations that lead to a T."""


def run(steps: Steps[T]) -> T:
    """Carry out the operations of a synchronous connection.

    Example:
        >>> def add(number):
        ...     other = yield lambda: 2
        ...     return number + other
        >>> run(add(40))
        42
    """
    try:
        operation = next(steps)
        while True:
            try:
                result = operation()
            except BaseException as failure:
                operation = steps.throw(failure)
            else:
                operation = steps.send(result)
    except StopIteration as end:
        result_of_all: T = end.value
        return result_of_all


async def run_async(steps: Steps[T]) -> T:
    """Carry out the operations of an asynchronous connection."""
    try:
        operation: Callable[[], Awaitable[Any]] = next(steps)
        while True:
            try:
                result = await operation()
            except BaseException as failure:
                operation = steps.throw(failure)
            else:
                operation = steps.send(result)
    except StopIteration as end:
        result_of_all: T = end.value
        return result_of_all

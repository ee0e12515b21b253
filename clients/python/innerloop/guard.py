"""Runs the code of callers' own objects, such as their `__str__` or `__array__`, whose failures become typed errors."""

from collections.abc import Iterator
from contextlib import contextmanager

from innerloop.errors import InnerloopError, InvalidArgumentError


@contextmanager
def guarded(subject: str) -> Iterator[None]:
    """Turn any failure inside into an error about `subject`.

    Raises:
        InvalidArgumentError: something inside failed; the failure is the error's cause.

    Example:
        >>> with guarded("labels"):
        ...     raise StopIteration
        Traceback (most recent call last):
        innerloop.errors.InvalidArgumentError: labels can't be read: StopIteration
    """
    try:
        yield
    except InnerloopError:
        raise
    except Exception as failure:
        raise InvalidArgumentError(f"{subject} can't be read: {said_by(failure)}") from failure


def said_by(failure: Exception) -> str:
    """Message of a failure, or its type where it has no message.

    Example:
        >>> said_by(ValueError("too long")), said_by(KeyError())
        ('too long', 'KeyError')
    """
    try:
        return str(failure) or type(failure).__name__
    except Exception:  # an exception class of the caller's own, whose `__str__` fails
        return type(failure).__name__

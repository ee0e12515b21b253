"""Errors on their way from the engine process to a front end."""

import traceback

from innerloop_server.domain import errors
from innerloop_server.frontend.messages import Failed

KINDS = {kind.__name__: kind for kind in errors.ServerError.__subclasses__()}


class EngineProcessError(Exception):
    """A fault of the engine process; the message is its stack trace there."""


def failed(number: int, error: BaseException) -> Failed:
    """The message that a request ended in `error`."""
    if isinstance(error, errors.ServerError):
        violations = error.violations if isinstance(error, errors.InvalidRequestError) else ()
        return Failed(number, type(error).__name__, str(error), error.retry_after, violations, {**error.facts})
    return Failed(number, "", "".join(traceback.format_exception(error)))


def error_of(failure: Failed) -> Exception:
    """The error that a message tells of."""
    if not failure.kind:
        return EngineProcessError(failure.message)
    kind = KINDS[failure.kind]
    error = kind.__new__(kind, failure.message)  # constructors take other arguments than the message
    error.retry_after, error.facts = failure.retry_after, failure.facts
    if isinstance(error, errors.InvalidRequestError):
        error.violations = failure.violations
    return error

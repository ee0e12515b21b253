"""When and how long a failed call is tried again."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    retry_never,
    stop_before_delay,
    wait_random_exponential,
)

from innerloop.errors import (
    AdaptationNotFoundError,
    InnerloopError,
    InvalidArgumentError,
    ModelLoadingError,
    ModelRetiredError,
    OverloadedError,
    UnavailableError,
)

_PASSING = (UnavailableError, OverloadedError, ModelLoadingError)
_BACKOFF = wait_random_exponential(multiplier=0.1, max=5.0)


_LONGEST_SECONDS = 1e8
"""The longest wait, three years. gRPC and locks refuse longer ones, or don't wait at all."""


def check_seconds(seconds: float, name: str) -> float:
    """A number of seconds to wait.

    Raises:
        InvalidArgumentError: it is no number above 0.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float | np.number) or not seconds > 0:
        raise InvalidArgumentError(f"{name} must be a number of seconds above 0")
    return float(min(seconds, _LONGEST_SECONDS))


def check_retries(retries: int) -> int:
    """A number of further attempts.

    Raises:
        InvalidArgumentError: it is no whole number, or below 0.
    """
    if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
        raise InvalidArgumentError("retries must be a whole number, 0 for none")
    return retries


class Deadline:
    """The moment by which a call and all its attempts must be done."""

    def __init__(self, seconds: float) -> None:
        self._moment = time.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds left, at least zero."""
        return max(0.0, self._moment - time.monotonic())


@dataclass(frozen=True)
class RetryPolicy:
    """Jittered exponential backoff, on top of the delay that the server suggests.

    Attributes:
        retries: attempts after the first; zero turns retries off. While a model is loading there may be more, up to the
            deadline: loading ends by itself, and often takes longer than these attempts.
    """

    retries: int = 4

    def may_ask_again(self, error: InnerloopError) -> bool:
        """Whether a query that failed so on a stream may be asked again by itself, adapting again if need be."""
        remade = isinstance(error, AdaptationNotFoundError | ModelRetiredError)
        return remade or (self.retries > 0 and isinstance(error, _PASSING))

    def retrying(self, deadline: Deadline, *, safe: bool) -> Retrying:
        """A caller for one synchronous call; gives up before `deadline`, at once unless repeating is `safe`."""
        return Retrying(**self._settings(deadline, safe))

    def async_retrying(self, deadline: Deadline, *, safe: bool) -> AsyncRetrying:
        """The same for one asynchronous call."""
        return AsyncRetrying(**self._settings(deadline, safe))

    def _settings(self, deadline: Deadline, safe: bool) -> dict[str, Any]:
        too_late = stop_before_delay(deadline.remaining())
        return {
            "retry": retry_if_exception_type(_PASSING) if safe else retry_never,
            "wait": _wait,
            "stop": lambda state: self._spent(state) or too_late(state),
            "reraise": True,
        }

    def _spent(self, state: RetryCallState) -> bool:
        """Whether no attempt is left."""
        loading = state.outcome is not None and isinstance(state.outcome.exception(), ModelLoadingError)
        return self.retries == 0 if loading else state.attempt_number > self.retries


def _wait(state: RetryCallState) -> float:
    """Seconds before the next attempt: never less than the server asks for."""
    error = state.outcome.exception() if state.outcome else None
    hint = error.retry_after if isinstance(error, InnerloopError) else None
    return (hint or 0.0) + _BACKOFF(state)

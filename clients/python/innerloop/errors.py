"""Types of errors: every failed call raises a subclass of InnerloopError.

Bad input is refused with InvalidArgumentError, which is a ValueError, before anything is sent where possible. Timeouts
are DeadlineExceededError, which is a TimeoutError. What passes by itself (UnavailableError, OverloadedError,
ModelLoadingError) reaches the caller only after the retries that the client was allowed.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import grpc


class FieldViolation(NamedTuple):
    """One field of a request that the server could not accept."""

    field: str
    description: str


class InnerloopError(Exception):
    """A call that failed, or a request that could not be built.

    Attributes:
        message: what went wrong, for people.
        code: gRPC status; subclasses that stand for one status have it as a default.
        reason: machine-readable cause such as "ADAPTATION_EVICTED"; empty where the status says it all.
        request_id: names the call in the server's logs; empty when nothing was sent.
        retry_after: seconds after which the server suggests to try again, if it does.
        violations: the fields that an invalid request got wrong.
    """

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        reason: str = "",
        request_id: str = "",
        retry_after: float | None = None,
        violations: Sequence[FieldViolation] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.reason = reason
        self.request_id = request_id
        self.retry_after = retry_after
        self.violations = tuple(violations)

    def because(self, cause: str) -> Self:
        """The same error whose message says first what caused it."""
        self.message = f"{cause} ({self.message})"
        self.args = (self.message,)
        return self

    def __str__(self) -> str:
        unsaid = [v for v in self.violations if v.description not in self.message]
        text = "; ".join([self.message, *(f"{v.field}: {v.description}" for v in unsaid)])
        context = ", ".join(filter(None, [self.reason, self.request_id and f"request {self.request_id}"]))
        return f"{text} ({context})" if context else text


class InvalidArgumentError(InnerloopError, ValueError):
    """The request does not fit the model, or makes no sense; see `violations`."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class NotFoundError(InnerloopError):
    """Something the request names does not exist."""

    code = grpc.StatusCode.NOT_FOUND


class ModelNotFoundError(NotFoundError):
    """The server has no model of that name."""


class AdaptationNotFoundError(NotFoundError):
    """The server has no adaptation of that id, or it belongs to somebody else."""


class AdaptationEvictedError(AdaptationNotFoundError):
    """The server had to drop the adaptation, or it expired."""


class AdaptationDamagedError(AdaptationNotFoundError):
    """The adaptation's record on the server is damaged."""


class FailedPreconditionError(InnerloopError):
    """The server is not in a state to do this."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class ModelLoadingError(FailedPreconditionError):
    """The model is being loaded; worth another try."""


class ModelRetiredError(FailedPreconditionError):
    """The adaptation was made by a version of its model that the server does not serve any more."""


class ExamplesNotKeptError(FailedPreconditionError):
    """Only the examples of the adaptation would do, and the server has not kept them, nor has this client."""


class RevisionChangedError(InnerloopError):
    """The adaptation has another revision than the caller expects; nothing was changed.

    Attributes:
        revision: the present one; zero where the server does not say.
    """

    code = grpc.StatusCode.ABORTED
    revision: int = 0


class ResourceExhaustedError(InnerloopError):
    """A limit was reached, such as the largest message."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class OverloadedError(ResourceExhaustedError):
    """The server has more work than it can queue; worth another try, after `retry_after` where it says so.

    Its `code` is CANCELLED where the server did not even read the call.
    """


class DeadlineExceededError(InnerloopError, TimeoutError):
    """The answer did not come within the timeout."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class UnavailableError(InnerloopError):
    """The server, or its store of adaptations, can't be reached, or it is shutting down; worth another try."""

    code = grpc.StatusCode.UNAVAILABLE


class ClientClosedError(InnerloopError):
    """The client was closed, before the call or during it."""

    code = grpc.StatusCode.CANCELLED


class MissingAnswerError(InnerloopError, AttributeError):
    """The answers have no such part: logits that were not asked for, or values of a classification."""


class UnauthenticatedError(InnerloopError):
    """The server does not know who is calling."""

    code = grpc.StatusCode.UNAUTHENTICATED


class PermissionDeniedError(InnerloopError):
    """The caller may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED


class InternalError(InnerloopError):
    """The server failed; its logs tell more under `request_id`."""

    code = grpc.StatusCode.INTERNAL

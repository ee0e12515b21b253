"""Domain errors to gRPC status, with google.rpc details. The one place that knows both."""

from typing import NamedTuple

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from innerloop_server.domain import errors

DOMAIN = "innerloop"

CODES: dict[type[errors.ServerError], grpc.StatusCode] = {
    errors.InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ModelNotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.ModelLoadingError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ModelFailedError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.AdminDisabledError: grpc.StatusCode.PERMISSION_DENIED,
    errors.DownloadsDisabledError: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotPortableError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    errors.ScopeMissingError: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotAdminError: grpc.StatusCode.PERMISSION_DENIED,
    errors.AdaptationNotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.AdaptationEvictedError: grpc.StatusCode.NOT_FOUND,
    errors.ModelRetiredError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.AdaptationDamagedError: grpc.StatusCode.NOT_FOUND,
    errors.RevisionChangedError: grpc.StatusCode.ABORTED,
    errors.ExamplesNotKeptError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ClassesChangedError: grpc.StatusCode.UNAVAILABLE,
    errors.StoreUnavailableError: grpc.StatusCode.UNAVAILABLE,
    errors.AdaptationTooLargeError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.TooManyAdaptationsError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DivergedError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlinePassedError: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.ShuttingDownError: grpc.StatusCode.UNAVAILABLE,
}

# A status travels in HTTP/2 trailers. gRPC accepts 8 KiB of them, and a byte may take three there.
MESSAGE_BYTES = 500
DESCRIPTION_BYTES = 150
VIOLATIONS_BYTES = 3500

DETAILS_KEY = "grpc-status-details-bin"


class Failure(NamedTuple):
    """The status that answers a failed call."""

    code: grpc.StatusCode
    message: str
    details: bytes


def failure_of(error: errors.ServerError) -> Failure:
    """The status of a domain error."""
    code = CODES[type(error)]
    message = _clip(str(error), MESSAGE_BYTES)
    details: list[Message] = [ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.facts)]
    if isinstance(error, errors.InvalidRequestError):
        details.append(_bad_request(error))
    if error.retry_after is not None:
        retry = RetryInfo()
        retry.retry_delay.FromNanoseconds(round(error.retry_after * 1e9))
        details.append(retry)
    return Failure(code, message, _status(code, message, details))


def internal_failure(request_id: str) -> Failure:
    """The status of a fault of the server itself; the logs say more under the request id."""
    message = f"the server failed to answer; its operator finds the cause under request id {request_id}"
    code = grpc.StatusCode.INTERNAL
    return Failure(code, message, _status(code, message, [ErrorInfo(reason="INTERNAL", domain=DOMAIN)]))


def _bad_request(error: errors.InvalidRequestError) -> BadRequest:
    """The first violations, as many as there is room for."""
    found, room = BadRequest(), VIOLATIONS_BYTES
    for violation in error.violations:
        description = _clip(violation.description, DESCRIPTION_BYTES)
        described = BadRequest.FieldViolation(field=violation.field, description=description)
        room -= described.ByteSize()
        if room < 0:
            break
        found.field_violations.append(described)
    return found


def _clip(text: str, size: int) -> str:
    """The beginning of a text, in at most `size` bytes of UTF-8."""
    return text.encode(errors="replace")[:size].decode(errors="ignore")


def _status(code: grpc.StatusCode, message: str, details: list[Message]) -> bytes:
    packed = []
    for detail in details:
        packed.append(Any())
        packed[-1].Pack(detail)
    number: int = code.value[0]
    serialised: bytes = Status(code=number, message=message, details=packed).SerializeToString()
    return serialised

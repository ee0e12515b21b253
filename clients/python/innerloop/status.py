"""From a gRPC status with its google.rpc details to a typed error."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from innerloop import errors

REQUEST_ID_KEY = "innerloop-request-id"
"""Metadata that carries the id of a call, in both directions."""

_BY_REASON = {
    "MODEL_NOT_FOUND": errors.ModelNotFoundError,
    "ADAPTATION_NOT_FOUND": errors.AdaptationNotFoundError,
    "ADAPTATION_EVICTED": errors.AdaptationEvictedError,
    "ADAPTATION_DAMAGED": errors.AdaptationDamagedError,
    "MODEL_LOADING": errors.ModelLoadingError,
    "MODEL_RETIRED": errors.ModelRetiredError,
    "EXAMPLES_NOT_KEPT": errors.ExamplesNotKeptError,
    "REVISION_CHANGED": errors.RevisionChangedError,
    "OVERLOADED": errors.OverloadedError,
}

_BY_CODE = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidArgumentError,
    grpc.StatusCode.NOT_FOUND: errors.NotFoundError,
    grpc.StatusCode.FAILED_PRECONDITION: errors.FailedPreconditionError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.ResourceExhaustedError,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceededError,
    grpc.StatusCode.UNAVAILABLE: errors.UnavailableError,
    grpc.StatusCode.UNAUTHENTICATED: errors.UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDeniedError,
    grpc.StatusCode.INTERNAL: errors.InternalError,
    grpc.StatusCode.UNKNOWN: errors.InternalError,
    grpc.StatusCode.DATA_LOSS: errors.InternalError,
    grpc.StatusCode.CANCELLED: errors.OverloadedError,
}

_CANCELLED = "the server ended the call without reading it, because too many calls wait there"
"""What CANCELLED means of a call that its caller did not cancel, and for which the server has no words of its own."""

_CODES = {code.value[0]: code for code in grpc.StatusCode}


@dataclass
class _Details:
    """The google.rpc details of a status."""

    reason: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    retry_after: float | None = None
    violations: tuple[errors.FieldViolation, ...] = ()


def error_from(failure: grpc.RpcError, request_id: str) -> errors.InnerloopError:
    """The typed error that a failed call stands for.

    Args:
        failure: what the stub raised, synchronous or not.
        request_id: the id that was sent, used unless the server names another.
    """
    try:
        status = rpc_status.from_call(failure)
    except (ValueError, DecodeError):  # a proxy's or a foreign server's details; the status itself still counts
        status = None
    return _error(failure.code(), failure.details(), status, _request_id(failure) or request_id)


def is_answered(failure: grpc.RpcError) -> bool:
    """Whether a call was failed by the server, and not on the way to it or by the client's own clock."""
    return bool(_request_id(failure))


def error_from_status(status: Status, request_id: str) -> errors.InnerloopError:
    """The typed error that one query on a stream is answered with.

    Args:
        status: a google.rpc.Status.
        request_id: the id that the stream was opened with.
    """
    return _error(_CODES.get(status.code, grpc.StatusCode.UNKNOWN), status.message, status, request_id)


def _error(code: grpc.StatusCode, message: str | None, status: Status | None, request_id: str) -> errors.InnerloopError:
    details = _read_details(status)
    if code is grpc.StatusCode.CANCELLED and status is None:
        message = _CANCELLED
    error = _error_type(code, details)(
        message or code.name,
        code=code,
        reason=details.reason,
        request_id=request_id,
        retry_after=details.retry_after,
        violations=details.violations,
    )
    if isinstance(error, errors.RevisionChangedError):
        error.revision = int(details.facts.get("revision", "0"))
    return error


def _error_type(code: grpc.StatusCode, details: _Details) -> type[errors.InnerloopError]:
    if details.reason in _BY_REASON:
        return _BY_REASON[details.reason]
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and details.retry_after is not None:
        return errors.OverloadedError
    return _BY_CODE.get(code, errors.InnerloopError)


def _read_details(status: Status | None) -> _Details:
    read = _Details()
    info, retry, bad_request = ErrorInfo(), RetryInfo(), BadRequest()
    for detail in status.details if status is not None else ():
        if detail.Unpack(info):
            read.reason, read.facts = info.reason, dict(info.metadata)
        elif detail.Unpack(retry):
            read.retry_after = retry.retry_delay.ToTimedelta().total_seconds()
        elif detail.Unpack(bad_request):
            read.violations = tuple(
                errors.FieldViolation(violation.field, violation.description)
                for violation in bad_request.field_violations
            )
    return read


def _request_id(failure: grpc.RpcError) -> str:
    metadata: Any = failure.trailing_metadata()
    return next((str(value) for key, value in metadata or () if key == REQUEST_ID_KEY), "")

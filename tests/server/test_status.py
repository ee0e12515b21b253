"""Domain errors on the wire."""

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from innerloop_server.domain import errors
from innerloop_server.transport.codec.violations import MOST_NAMED
from innerloop_server.transport.grpc.status import CODES, failure_of, internal_failure


def details(failure):
    status = Status.FromString(failure.details)
    assert (status.code, status.message) == (failure.code.value[0], failure.message)
    found = {}
    for kind in (ErrorInfo, BadRequest, RetryInfo):
        for packed in status.details:
            message = kind()
            if packed.Unpack(message):
                found[kind] = message
    return found


def test_every_domain_error_has_a_status():
    assert set(errors.ServerError.__subclasses__()) == set(CODES)


def test_reasons_are_unique():
    reasons = [kind.reason for kind in CODES]
    assert len(reasons) == len(set(reasons))


def test_overload_tells_when_to_try_again():
    found = details(failure_of(errors.OverloadedError(1.5)))
    assert found[ErrorInfo].reason == "OVERLOADED"
    assert found[RetryInfo].retry_delay.ToNanoseconds() == 1_500_000_000


@pytest.mark.parametrize("character", ["x", "ß", "猫"])
def test_even_the_worst_request_gets_an_answer_that_fits_into_trailers(character):
    violations = [errors.FieldViolation("support.inputs", character * 10_000) for _ in range(1000)]
    failure = failure_of(errors.InvalidRequestError(violations))
    percent_encoded = 3 * len(failure.message.encode())
    base64 = len(failure.details) * 4 / 3
    assert percent_encoded + base64 < 8_000
    assert details(failure)[BadRequest].field_violations


def test_all_files_that_a_refusal_names_arrive():
    field = "support.inputs.images.files[{}]"
    violations = [errors.FieldViolation(field.format(1000 + i), "is not readable" * 6) for i in range(MOST_NAMED)]
    found = details(failure_of(errors.InvalidRequestError(violations)))[BadRequest].field_violations
    assert [(each.field, each.description) for each in found] == violations


def test_a_fault_of_the_server_tells_its_request_id_and_nothing_else():
    failure = internal_failure("abc")
    assert failure.code is grpc.StatusCode.INTERNAL
    assert "abc" in failure.message
    assert details(failure)[ErrorInfo].reason == "INTERNAL"

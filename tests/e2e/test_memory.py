"""Adaptations under a byte budget and with an expiry."""

import time

import pytest
from examples import adapt_request, predict_request
from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode
from running import wait_until

from innerloop.v1 import adaptation_pb2 as pb

pytestmark = [pytest.mark.with_and_without_front_ends, pytest.mark.rarely("alone")]

BUDGET = 4096


@pytest.fixture(scope="module")
def server(start_server):
    """A server with room for a few adaptations to prototypes."""
    with start_server(adaptation_bytes=BUDGET, max_time_to_live=3600) as server:
        yield server


def test_the_least_recently_used_adaptation_is_evicted_and_its_owner_is_told(client, metrics, fails):
    kept = client.adaptations.Adapt(adapt_request()).adaptation
    dropped = client.adaptations.Adapt(adapt_request()).adaptation
    evicted = metrics("innerloop_adaptations_evicted_total", model="prototypes")
    while metrics("innerloop_adaptations_evicted_total", model="prototypes") == evicted:
        client.adaptations.Predict(predict_request(kept.id))
        client.adaptations.Adapt(adapt_request())
    problem = fails(client.adaptations.Predict, predict_request(dropped.id))
    assert (problem.code, problem.reason) == (StatusCode.NOT_FOUND, "ADAPTATION_EVICTED")
    assert client.adaptations.Predict(predict_request(kept.id))
    assert metrics("innerloop_adaptations_bytes", model="prototypes") <= BUDGET
    assert metrics("innerloop_adaptation_budget_bytes") == BUDGET


def test_an_unused_adaptation_expires_by_itself(client, metrics, fails):
    options = pb.AdaptOptions(time_to_live=Duration(nanos=200_000_000))
    adaptation = client.adaptations.Adapt(adapt_request(options=options)).adaptation
    expired = metrics("innerloop_adaptations_expired_total", model="prototypes")
    wait_until(lambda: metrics("innerloop_adaptations_expired_total", model="prototypes") == expired + 1)
    assert fails(client.adaptations.Predict, predict_request(adaptation.id)).reason == "ADAPTATION_EVICTED"


def test_use_keeps_an_adaptation_alive(client):
    options = pb.AdaptOptions(time_to_live=Duration(seconds=1))
    adaptation = client.adaptations.Adapt(adapt_request(options=options)).adaptation
    past_its_life = time.monotonic() + 1.2
    while time.monotonic() < past_its_life:
        time.sleep(0.02)
        client.adaptations.Predict(predict_request(adaptation.id))


def test_a_life_longer_than_allowed_is_refused(client, fails):
    options = pb.AdaptOptions(time_to_live=Duration(seconds=3601))
    problem = fails(client.adaptations.Adapt, adapt_request(options=options))
    assert set(problem.fields) == {"options.time_to_live"}


def test_an_adaptation_larger_than_the_budget_is_refused(client, fails):
    problem = fails(client.adaptations.Adapt, adapt_request("gradients"))
    assert (problem.code, problem.reason) == (StatusCode.FAILED_PRECONDITION, "ADAPTATION_TOO_LARGE")
    assert problem.retry_after is None

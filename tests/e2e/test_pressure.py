"""Deadlines, cancellation, overload: what is not computed."""

from collections import Counter

import grpc
import pytest
from examples import adapt_request, lasting_request
from grpc import StatusCode
from running import connect, wait_until

from innerloop.v1.model_pb2 import ListModelsRequest

pytestmark = [pytest.mark.with_and_without_front_ends, pytest.mark.rarely("alone")]

WAITING = 2
FLOOD = 600


@pytest.fixture(scope="module")
def server(start_server):
    """A server whose queue holds two requests of a model."""
    with start_server(max_queue_requests=WAITING) as server:
        yield server


@pytest.fixture
def busy(client, metrics):
    """Occupies the device for about a second, and a place in the queue of "gradients" for longer; gives that call."""
    client.models.ListModels(ListModelsRequest())
    running = client.adaptations.Adapt.future(lasting_request(1000))
    client.models.ListModels(ListModelsRequest())  # comes after the request before it
    waiting = client.adaptations.Adapt.future(lasting_request(10))
    wait_until(lambda: metrics("innerloop_queue_depth", model="gradients", operation="adapt") == 1)
    yield running
    running.result()
    waiting.result()


def prototypes_computed(metrics):
    return metrics("innerloop_batch_size_sum", model="prototypes", operation="adapt")


def answered(metrics, status):
    return metrics("innerloop_requests_total", rpc="Adapt", model="prototypes", status=status)


@pytest.mark.usefixtures("busy")
def test_a_request_whose_deadline_passes_while_it_waits_is_not_computed(client, metrics, fails):
    computed = prototypes_computed(metrics)
    problem = fails(client.adaptations.Adapt, adapt_request(), timeout=0.1)
    assert problem.code is StatusCode.DEADLINE_EXCEEDED
    client.adaptations.Adapt(adapt_request(ways=4))
    wait_until(lambda: prototypes_computed(metrics) > computed)  # batches are counted after they were answered
    assert prototypes_computed(metrics) == computed + 1
    wait_until(lambda: answered(metrics, "DEADLINE_EXCEEDED") == 1)  # a call is counted after it was answered


@pytest.mark.usefixtures("busy")
def test_a_cancelled_request_is_not_computed_and_its_batch_mates_are(client, metrics):
    computed = prototypes_computed(metrics)
    first, second = (client.adaptations.Adapt.future(adapt_request(seed=seed)) for seed in range(2))
    wait_until(lambda: metrics("innerloop_queue_depth", model="prototypes", operation="adapt") == 2)
    first.cancel()
    assert second.result().adaptation.id
    wait_until(lambda: prototypes_computed(metrics) > computed)  # batches are counted after they were answered
    assert prototypes_computed(metrics) == computed + 1
    wait_until(lambda: answered(metrics, "CANCELLED") == 1)


def test_overload_is_refused_at_once_with_a_time_to_try_again(client, metrics, fails, busy):
    waiting = client.adaptations.Adapt.future(lasting_request(11))
    wait_until(lambda: metrics("innerloop_queue_depth", model="gradients", operation="adapt") == WAITING)
    problem = fails(client.adaptations.Adapt, lasting_request(12))
    assert not busy.done(), "it did not wait for the device"
    assert (problem.code, problem.reason) == (StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert 0 < problem.retry_after <= 30
    assert client.adaptations.Adapt(adapt_request()), "another model is not overloaded"
    assert waiting.result()


@pytest.mark.usefixtures("busy")
def test_a_client_that_hangs_up_frees_its_place_in_the_queue(client, server, metrics):
    with connect(server, options=[("grpc.use_local_subchannel_pool", 1)]) as other:
        left = other.adaptations.Adapt.future(lasting_request(11))
        wait_until(lambda: metrics("innerloop_queue_depth", model="gradients", operation="adapt") == WAITING)
    assert isinstance(left.exception(), grpc.RpcError | grpc.FutureCancelledError)
    wait_until(lambda: metrics("innerloop_queue_depth", model="gradients", operation="adapt") < WAITING)
    assert client.adaptations.Adapt(lasting_request(12))


def test_a_flood_is_refused_unread_and_other_rpcs_notice_nothing_of_it(client):
    request = adapt_request()
    flood = [client.adaptations.Adapt.future(request) for _ in range(FLOOD)]
    assert client.models.ListModels(ListModelsRequest()).models
    codes = Counter(call.code() for call in flood)
    assert codes[StatusCode.CANCELLED], "no more wait inside gRPC than can be read in good time"
    assert set(codes) <= {StatusCode.OK, StatusCode.RESOURCE_EXHAUSTED, StatusCode.CANCELLED}

"""Metrics of a running server after a known number of requests."""

import pytest
from examples import adapt_request, picture_support, pictures, predict_request
from running import Metrics, connect, wait_until
from wire import inputs

from innerloop.v1 import adaptation_pb2 as pb

pytestmark = [pytest.mark.with_and_without_front_ends, pytest.mark.rarely("alone")]

NAMES = {
    "innerloop_requests_total",
    "innerloop_request_duration_seconds_bucket",
    "innerloop_phase_duration_seconds_bucket",
    "innerloop_batch_size_bucket",
    "innerloop_queue_depth",
    "innerloop_device_busy_seconds_total",
    "innerloop_support_size_bucket",
    "innerloop_inner_loop_steps_bucket",
    "innerloop_adaptations_held",
    "innerloop_adaptations_bytes",
    "innerloop_adaptations_created_total",
    "innerloop_adaptations_updated_total",
    "innerloop_adaptations_expired_total",
    "innerloop_adaptations_evicted_total",
    "innerloop_adaptation_budget_bytes",
    "innerloop_model_info",
    "innerloop_device_memory_bytes",
    "innerloop_build_info",
    "process_cpu_seconds_total",
}


@pytest.fixture(scope="module")
def metrics(start_server):
    """After four Adapts (one invalid, one of no model, one dropped again), two Predicts and an AdaptPredict."""
    with start_server() as server, connect(server) as client:
        kept = client.adaptations.Adapt(adapt_request("gradients", ways=3, shots=2)).adaptation
        dropped = client.adaptations.Adapt(adapt_request("gradients", ways=5)).adaptation
        client.adaptations.DeleteAdaptation(pb.DeleteAdaptationRequest(adaptation_id=dropped.id))
        for request in (adapt_request("gradients", ways=9), adapt_request("made up by a client")):
            client.adaptations.Adapt.future(request).exception()
        for _ in range(2):
            client.adaptations.Predict(predict_request(kept.id))
        client.adaptations.AdaptPredict(
            pb.AdaptPredictRequest(
                model="gradients",
                support=picture_support(3),
                query=inputs(pictures(1)),
                options=pb.AdaptOptions(steps=1),
            )
        )
        metrics = Metrics(server.metrics_url)
        # A call is counted after it was answered.
        wait_until(lambda: metrics("innerloop_requests_total", rpc="AdaptPredict", model="gradients", status="OK") == 1)
        yield metrics


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_metric_is_there(metrics, name):
    assert metrics.samples(name)


def test_requests_are_counted_by_rpc_model_and_status(metrics):
    def count(rpc, model, status):
        return metrics("innerloop_requests_total", rpc=rpc, model=model, status=status)

    assert count("Adapt", "gradients", "OK") == 2
    assert count("Adapt", "gradients", "INVALID_ARGUMENT") == 1
    assert count("Adapt", "", "NOT_FOUND") == 1
    assert count("Predict", "gradients", "OK") == 2
    assert count("AdaptPredict", "gradients", "OK") == 1
    assert count("DeleteAdaptation", "gradients", "OK") == 1
    assert metrics("innerloop_request_duration_seconds_count", rpc="Adapt", model="gradients") == 3


def test_what_clients_make_up_never_becomes_a_label(metrics):
    models = {sample.labels["model"] for sample in metrics.samples("innerloop_requests_total")}
    assert models == {"", "gradients"}


def test_phases_are_timed(metrics):
    def count(phase):
        return metrics("innerloop_phase_duration_seconds_count", phase=phase, model="gradients")

    assert (count("adapt"), count("predict"), count("queue"), count("encode")) == (3, 3, 5, 5)


def test_batches_support_sets_and_steps_are_measured(metrics):
    assert metrics("innerloop_batch_size_sum", operation="adapt", model="gradients") == 3
    assert metrics("innerloop_batch_size_sum", operation="predict", model="gradients") == 3
    assert metrics("innerloop_support_size_sum", model="gradients") == 6 + 5 + 3
    assert metrics("innerloop_inner_loop_steps_sum", model="gradients") == 3 + 3 + 1
    assert metrics("innerloop_queue_depth", model="gradients", operation="adapt") == 0


def test_adaptations_are_counted(metrics):
    assert metrics("innerloop_adaptations_created_total", model="gradients") == 2
    assert metrics("innerloop_adaptations_held", model="gradients") == 1
    assert metrics("innerloop_adaptations_bytes", model="gradients") > 1000
    assert metrics("innerloop_adaptation_budget_bytes") == 2**30


def test_models_and_memory_are_described(metrics):
    methods = {sample.labels["model"]: sample.labels["method"] for sample in metrics.samples("innerloop_model_info")}
    assert methods == {"prototypes": "protonet", "gradients": "maml", "regression": "maml", "weighing": "protonet"}
    assert metrics("innerloop_device_memory_bytes", device="cpu", kind="resident") > 2**20

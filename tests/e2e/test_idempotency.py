"""Adapt requests that are repeated."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from examples import adapt_request, lasting_request, picture_support, pictures, predict_request
from grpc import StatusCode
from running import wait_until
from wire import inputs

from innerloop.v1 import adaptation_pb2 as pb

pytestmark = [pytest.mark.with_and_without_front_ends, pytest.mark.rarely("alone")]


def adaptations_made(metrics, model):
    return metrics("innerloop_adaptations_created_total", model=model)


def test_the_same_request_again_returns_the_same_adaptation(client, metrics):
    before = adaptations_made(metrics, "prototypes")
    first, second = (client.adaptations.Adapt(adapt_request(request_id="again")).adaptation for _ in range(2))
    assert first.id == second.id
    assert adaptations_made(metrics, "prototypes") == before + 1


def test_without_a_request_id_every_request_adapts(client):
    first, second = (client.adaptations.Adapt(adapt_request()).adaptation for _ in range(2))
    assert first.id != second.id


def test_the_same_request_at_the_same_time_adapts_once(client, metrics):
    before = adaptations_made(metrics, "gradients")
    request = lasting_request(300, request_id="at the same time")
    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(client.adaptations.Adapt, [request] * 8))
    assert len({response.adaptation.id for response in responses}) == 1
    assert adaptations_made(metrics, "gradients") == before + 1


def test_a_repetition_gets_its_answer_though_the_first_caller_left(client, metrics):
    before = adaptations_made(metrics, "gradients")
    request = lasting_request(600, request_id="left")
    first = client.adaptations.Adapt.future(request)
    second = client.adaptations.Adapt.future(request)
    wait_until(lambda: second.running() and first.running())
    client.adaptations.Adapt(adapt_request())  # both of the others have arrived before this one
    first.cancel()
    adaptation = second.result().adaptation
    assert adaptation.steps == 600
    assert client.adaptations.Predict(predict_request(adaptation.id))
    assert adaptations_made(metrics, "gradients") == before + 1


def test_a_request_id_used_for_something_else_is_refused(client, fails):
    client.adaptations.Adapt(adapt_request(request_id="mine", seed=0))
    problem = fails(client.adaptations.Adapt, adapt_request(request_id="mine", seed=1))
    assert (problem.code, set(problem.fields)) == (StatusCode.INVALID_ARGUMENT, {"request_id"})


def test_a_request_whose_adaptation_is_gone_adapts_again(client):
    request = adapt_request(request_id="gone")
    first = client.adaptations.Adapt(request).adaptation
    client.adaptations.DeleteAdaptation(pb.DeleteAdaptationRequest(adaptation_id=first.id))
    second = client.adaptations.Adapt(request).adaptation
    assert second.id != first.id
    assert client.adaptations.Predict(predict_request(second.id))


def test_adapt_predict_that_keeps_is_as_safe_to_repeat(client):
    request = pb.AdaptPredictRequest(
        model="prototypes",
        support=picture_support(),
        query=inputs(pictures(2)),
        keep=True,
        request_id="keep",
    )
    first, second = (client.adaptations.AdaptPredict(request) for _ in range(2))
    assert first.adaptation.id == second.adaptation.id
    assert first.predictions == second.predictions

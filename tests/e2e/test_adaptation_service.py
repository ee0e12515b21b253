"""Every RPC of AdaptationService against a real server process."""

import time
from io import BytesIO

import numpy as np
import pytest
from examples import adapt_request, curve_support, picture_support, pictures, predict_request
from google.protobuf.duration_pb2 import Duration
from PIL import Image
from wire import array, images, inputs, support

from innerloop.v1 import adaptation_pb2 as pb

pytestmark = pytest.mark.with_and_without_front_ends


def test_adapt_describes_what_it_made(client):
    response = client.adaptations.Adapt(adapt_request("gradients", ways=4, shots=2))
    adaptation = response.adaptation
    assert adaptation.model == "gradients"
    assert adaptation.model_version
    assert list(adaptation.classes) == ["class 0", "class 1", "class 2", "class 3"]
    assert (adaptation.support_size, adaptation.steps, len(adaptation.support_losses)) == (8, 3, 3)
    assert adaptation.size_bytes > 1000
    assert adaptation.create_time.ToSeconds() == pytest.approx(time.time(), abs=30)
    assert adaptation.expire_time.ToSeconds() == pytest.approx(time.time() + 30 * 86400, abs=30)
    assert len(adaptation.id) >= 32
    assert 0 < response.timings.adapt.ToNanoseconds() < 10**10


def test_predict_answers_in_the_callers_words(client):
    request = adapt_request(ways=3)
    adaptation = client.adaptations.Adapt(request).adaptation
    response = client.adaptations.Predict(
        pb.PredictRequest(adaptation_id=adaptation.id, query=request.support.inputs, return_logits=True)
    )
    predictions = response.predictions
    probabilities = array(predictions.probabilities)
    assert list(predictions.classes) == list(adaptation.classes)
    assert probabilities.shape == array(predictions.logits).shape == (3, 3)
    assert probabilities.argmax(1).tolist() == [0, 1, 2], "each support example is nearest to its own prototype"
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert response.timings.predict.ToNanoseconds() > 0


def test_logits_come_on_demand_only(client):
    adaptation = client.adaptations.Adapt(adapt_request()).adaptation
    assert not client.adaptations.Predict(predict_request(adaptation.id)).predictions.HasField("logits")


def test_steps_of_the_request_are_taken(client):
    for steps in (0, 7):
        options = pb.AdaptOptions(steps=steps)
        adaptation = client.adaptations.Adapt(adapt_request("gradients", options=options)).adaptation
        assert (adaptation.steps, len(adaptation.support_losses)) == (steps, steps)


def test_weights_of_examples_come_back_with_the_adaptation(client):
    pixels, labels = pictures(12, seed=8), np.tile(["cat", "dog", "owl"], 4)
    request = pb.AdaptRequest(model="weighing", support=support(pixels, labels), request_id="weigh")
    adaptation = client.adaptations.Adapt(request).adaptation
    weights = np.array(adaptation.example_weights)
    assert weights.shape == (12,)
    assert weights.std() > 0.1
    np.testing.assert_allclose([weights[labels == label].mean() for label in ("cat", "dog", "owl")], 1, rtol=1e-4)
    again = client.adaptations.Adapt(request).adaptation
    found = client.adaptations.GetAdaptation(pb.GetAdaptationRequest(adaptation_id=adaptation.id)).adaptation
    assert list(again.example_weights) == list(found.example_weights) == list(adaptation.example_weights)
    listed = client.adaptations.ListAdaptations(pb.ListAdaptationsRequest(model="weighing")).adaptations
    assert [(each.id, len(each.example_weights)) for each in listed] == [(adaptation.id, 0)]
    order = np.random.default_rng(0).permutation(12)
    both = pb.AdaptPredictRequest(
        model="weighing", support=support(pixels[order], labels[order]), query=inputs(pixels[:1]), keep=True
    )
    np.testing.assert_allclose(
        client.adaptations.AdaptPredict(both).adaptation.example_weights, weights[order], rtol=1e-3, atol=1e-4
    )
    assert not client.adaptations.Adapt(adapt_request("prototypes")).adaptation.example_weights


def test_regression_answers_with_values(client):
    request = pb.AdaptRequest(model="regression", support=curve_support())
    adaptation = client.adaptations.Adapt(request).adaptation
    query = inputs(np.linspace(-1, 1, 7, dtype=np.float32)[:, None])
    predictions = client.adaptations.Predict(pb.PredictRequest(adaptation_id=adaptation.id, query=query)).predictions
    assert array(predictions.values).shape == (7, 1)
    assert not adaptation.classes
    assert not predictions.HasField("probabilities")


def test_adapt_predict_gives_what_adapt_then_predict_gives_and_keeps_nothing(client, metrics):
    for model in ("prototypes", "gradients"):
        adaptation = client.adaptations.Adapt(adapt_request(model)).adaptation
        apart = client.adaptations.Predict(predict_request(adaptation.id, return_logits=True)).predictions
        held = metrics("innerloop_adaptations_held", model=model)
        request = pb.AdaptPredictRequest(
            model=model, support=picture_support(), query=inputs(pictures(4, seed=1)), return_logits=True
        )
        response = client.adaptations.AdaptPredict(request)
        assert response.predictions == apart
        assert not response.HasField("adaptation")
        assert response.timings.adapt.ToNanoseconds() > 0 < response.timings.predict.ToNanoseconds()
        assert metrics("innerloop_adaptations_held", model=model) == held


def test_adapt_predict_keeps_the_adaptation_when_asked_to(client):
    request = pb.AdaptPredictRequest(
        model="prototypes", support=picture_support(), query=inputs(pictures(4, seed=1)), keep=True
    )
    response = client.adaptations.AdaptPredict(request)
    again = client.adaptations.Predict(predict_request(response.adaptation.id))
    assert again.predictions == response.predictions


def test_image_files_are_decoded_and_resized(client):
    def png(level):
        buffer = BytesIO()
        Image.new("RGB", (50, 30), (level, level, level)).save(buffer, "PNG")
        return buffer.getvalue()

    support = pb.Support(inputs=images(png(0), png(255)), labels=pb.Labels(values=["dark", "bright"]))
    request = pb.AdaptPredictRequest(model="prototypes", support=support, query=images(png(230), png(20)))
    predictions = client.adaptations.AdaptPredict(request).predictions
    answers = [predictions.classes[column] for column in array(predictions.probabilities).argmax(1)]
    assert answers == ["bright", "dark"]


def test_a_request_too_large_for_the_event_loop_is_decoded_beside_it(client):
    query = pictures(9999)
    adaptation = client.adaptations.Adapt(adapt_request()).adaptation
    request = pb.PredictRequest(adaptation_id=adaptation.id, query=inputs(query.astype(np.float32)))
    assert array(client.adaptations.Predict(request).predictions.probabilities).shape == (9999, 3)


def test_get_describes_an_adaptation_and_use_postpones_its_expiry(client):
    options = pb.AdaptOptions(time_to_live=Duration(seconds=100))
    made = client.adaptations.Adapt(adapt_request(options=options)).adaptation
    time.sleep(0.05)
    client.adaptations.Predict(predict_request(made.id))
    found = client.adaptations.GetAdaptation(pb.GetAdaptationRequest(adaptation_id=made.id)).adaptation
    assert found.expire_time.ToNanoseconds() > made.expire_time.ToNanoseconds()
    found.expire_time.CopyFrom(made.expire_time)
    assert found == made


def test_delete_forgets_an_adaptation(client, fails):
    adaptation = client.adaptations.Adapt(adapt_request()).adaptation
    client.adaptations.DeleteAdaptation(pb.DeleteAdaptationRequest(adaptation_id=adaptation.id))
    assert fails(client.adaptations.Predict, predict_request(adaptation.id)).reason == "ADAPTATION_NOT_FOUND"


def test_list_pages_through_all_adaptations_newest_first(client):
    for adaptation in client.adaptations.ListAdaptations(pb.ListAdaptationsRequest()).adaptations:
        client.adaptations.DeleteAdaptation(pb.DeleteAdaptationRequest(adaptation_id=adaptation.id))
    made = [client.adaptations.Adapt(adapt_request(seed=seed)).adaptation.id for seed in range(5)]
    other = client.adaptations.Adapt(adapt_request("gradients")).adaptation.id
    listed, token = [], ""
    while True:
        request = pb.ListAdaptationsRequest(page_size=2, page_token=token, model="prototypes")
        page = client.adaptations.ListAdaptations(request)
        listed += [adaptation.id for adaptation in page.adaptations]
        assert len(page.adaptations) <= 2
        token = page.next_page_token
        if not token:
            break
        client.adaptations.Adapt(adapt_request())
    assert listed == made[::-1]
    everything = client.adaptations.ListAdaptations(pb.ListAdaptationsRequest()).adaptations
    assert other in [adaptation.id for adaptation in everything]

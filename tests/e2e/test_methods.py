"""Every registered method served alike: answers, unequal shots, other ways, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from bundles import FIXED_WAYS, IMAGES, small_settings, write_bundle
from examples import adapt_request, pictures, predict_request
from grpc import StatusCode
from wire import array, inputs, support

from innerloop.v1 import adaptation_pb2 as pb
from innerloop_learner import LearnerSpec, Query, Support, build_learner
from innerloop_learner.bundle import load_bundle
from innerloop_learner.learner import methods

each_method = pytest.mark.parametrize("method", list(methods))


def spec_of(method):
    many = methods[method].info.ways_can_change == "any"
    return LearnerSpec(
        method,
        IMAGES,
        max_ways=20 if many else FIXED_WAYS,
        train_classes=7,
        backbone="mlp",
        backbone_settings={"widths": [16]},
        settings=small_settings(method, max_steps=4),
    )


def bundle_name(method):
    return method.replace("+", "-plus")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An untrained bundle of every method."""
    folder = tmp_path_factory.mktemp("models")
    for method in methods:
        write_bundle(folder / bundle_name(method), spec_of(method))
    write_bundle(folder / "copying", replace(spec_of("maml"), support_policy="learned", policy_settings={"copies": 2}))
    return folder


@pytest.fixture(scope="module")
def server(start_server, folder):
    with start_server(folder) as server:
        yield server


def offline(bundle, images, labels, queries, ways):
    """Probabilities [Q, ways] of the bundle without a server."""

    def normalised(pixels):
        return (torch.from_numpy(pixels).float().unsqueeze(0) / 255 - 0.5) / 0.5

    learner, count = bundle.learner, len(labels)
    given = Support(
        normalised(images),
        torch.tensor([labels]),
        torch.ones(1, count, dtype=torch.bool),
        torch.tensor([ways]),
        learner.padded_ways(ways),
    )
    asked = Query(normalised(queries), torch.ones(1, len(queries), dtype=torch.bool))
    with torch.no_grad():
        outputs = learner.predict(bundle.params, learner.adapt(bundle.params, given).state, asked)
    return outputs[0, :, :ways].softmax(-1).numpy()


@each_method
@pytest.mark.parametrize(
    "labels", [[0, 1, 2, 3, 4], [0, 1, 0, 2, 0, 1]], ids=["as-trained", "fewer-ways-unequal-shots"]
)
def test_the_server_answers_as_the_learner_does(client, folder, method, labels):
    images, queries = pictures(len(labels), seed=3), pictures(6, seed=4)
    request = pb.AdaptRequest(model=bundle_name(method), support=support(images, [f"class {way}" for way in labels]))
    adaptation = client.adaptations.Adapt(request).adaptation
    ways = len(set(labels))
    assert list(adaptation.classes) == [f"class {way}" for way in range(ways)]
    predictions = client.adaptations.Predict(predict_request(adaptation.id, count=6, seed=4)).predictions
    expected = offline(load_bundle(folder / bundle_name(method)), images, labels, queries, ways)
    np.testing.assert_allclose(array(predictions.probabilities), expected, atol=1e-5)


def test_a_model_with_a_support_policy_answers_as_its_learner_does_in_any_order_of_examples(client, folder):
    labels, images, queries = np.array([0, 1, 2, 0, 1, 2]), pictures(6, seed=3), pictures(6, seed=4)
    expected = offline(load_bundle(folder / "copying"), images, labels.tolist(), queries, 3)
    for order in (range(6), [3, 4, 5, 0, 1, 2]):
        given = support(images[order], [f"class {labels[row]}" for row in order])
        adaptation = client.adaptations.Adapt(pb.AdaptRequest(model="copying", support=given)).adaptation
        predictions = client.adaptations.Predict(predict_request(adaptation.id, count=6, seed=4)).predictions
        np.testing.assert_allclose(array(predictions.probabilities), expected, atol=1e-5)
    plain = offline(load_bundle(folder / "maml"), images, labels.tolist(), queries, 3)
    assert np.abs(plain - expected).max() > 1e-3


@each_method
def test_more_ways_than_trained_are_served_or_refused_with_a_reason(client, fails, method):
    request = adapt_request(bundle_name(method), ways=FIXED_WAYS + 2)
    if methods[method].info.ways_can_change == "any":
        assert len(client.adaptations.Adapt(request).adaptation.classes) == FIXED_WAYS + 2
        return
    problem = fails(client.adaptations.Adapt, request)
    assert problem.code == StatusCode.INVALID_ARGUMENT
    assert f"at most {FIXED_WAYS}" in str(problem)


@each_method
def test_as_many_ways_as_the_bundle_allows_are_served(client, method):
    most = spec_of(method).max_ways
    assert len(client.adaptations.Adapt(adapt_request(bundle_name(method), ways=most)).adaptation.classes) == most


@each_method
def test_the_order_of_examples_matters_only_where_the_model_says_so(client, method):
    images, labels = pictures(5, seed=5), ["e", "c", "a", "d", "b"]
    answers = []
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 1, 3]):
        request = pb.AdaptPredictRequest(
            model=bundle_name(method),
            support=support(images[order], [labels[index] for index in order]),
            query=inputs(pictures(4, seed=6)),
        )
        predictions = client.adaptations.AdaptPredict(request).predictions
        columns = [list(predictions.classes).index(label) for label in sorted(labels)]
        answers.append(array(predictions.probabilities)[:, columns])
    if not methods[method].info.order_matters:
        np.testing.assert_allclose(*answers, atol=1e-5)
    else:
        assert np.abs(answers[0] - answers[1]).max() > 1e-5


@pytest.mark.parametrize("method", [name for name in methods if build_learner(spec_of(name)).extends])
def test_classes_are_learned_one_by_one_into_an_adaptation_whose_examples_are_gone(client, method):
    images, labels = pictures(9, seed=5), ["b", "a", "b", "a", "b", "c", "c", "a", "d"]
    options = pb.AdaptOptions(forget_examples=True)
    first, every = support(images[:4], labels[:4]), support(images, labels)
    grown = client.adaptations.Adapt(
        pb.AdaptRequest(model=bundle_name(method), support=first, options=options)
    ).adaptation
    for start, end in ((4, 7), (7, 9)):
        more = pb.UpdateAdaptationRequest(adaptation_id=grown.id, add=support(images[start:end], labels[start:end]))
        assert client.adaptations.UpdateAdaptation(more).adaptation.support_size == end
    anew = client.adaptations.Adapt(pb.AdaptRequest(model=bundle_name(method), support=every)).adaptation
    answers = []
    for adaptation in (anew, grown):
        predictions = client.adaptations.Predict(predict_request(adaptation.id, count=6, seed=4)).predictions
        columns = [list(predictions.classes).index(label) for label in "abcd"]
        answers.append(array(predictions.probabilities)[:, columns])
    np.testing.assert_allclose(*answers, atol=1e-5)


@each_method
def test_examples_of_one_class_teach_nothing_and_are_refused(client, fails, method):
    request = adapt_request(bundle_name(method), ways=1, shots=3)
    problem = fails(client.adaptations.Adapt, request)
    assert problem.code == StatusCode.INVALID_ARGUMENT
    assert "support.labels" in problem.fields


@each_method
def test_steps_are_taken_up_to_the_limit_of_the_bundle(client, fails, method):
    limit = build_learner(spec_of(method)).max_steps
    if limit:
        adaptation = client.adaptations.Adapt(
            adapt_request(bundle_name(method), ways=5, options=pb.AdaptOptions(steps=limit))
        ).adaptation
        assert (adaptation.steps, len(adaptation.support_losses)) == (limit, limit)
    problem = fails(
        client.adaptations.Adapt,
        adapt_request(bundle_name(method), ways=5, options=pb.AdaptOptions(steps=limit + 1)),
    )
    assert (problem.code, set(problem.fields)) == (StatusCode.INVALID_ARGUMENT, {"options.steps"})

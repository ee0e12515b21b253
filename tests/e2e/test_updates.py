"""Adaptations that learn more examples, or fewer, under their ids: against a real server process."""

import queue
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import grpc
import numpy as np
import pytest
from examples import adapt_request, curve_support, pictures, predict_request
from google.rpc.error_details_pb2 import ErrorInfo
from PIL import Image
from wire import array, images, inputs, problem, regression_support, support, tensor

from innerloop.v1 import adaptation_pb2 as pb

pytestmark = pytest.mark.with_and_without_front_ends


@pytest.fixture(scope="module")
def server(start_server, tmp_path_factory):
    """A server that keeps examples."""
    with start_server(store=f"sqlite:{tmp_path_factory.mktemp('store') / 'store'}") as running:
        yield running


def update(client, adaptation, **fields):
    return client.adaptations.UpdateAdaptation(pb.UpdateAdaptationRequest(adaptation_id=adaptation.id, **fields))


def answers(client, adaptation):
    predictions = client.adaptations.Predict(predict_request(adaptation.id, return_logits=True)).predictions
    return array(predictions.logits), list(predictions.classes)


def listed(client, adaptation):
    found = client.adaptations.ListExamples(pb.ListExamplesRequest(adaptation_id=adaptation.id))
    return dict(zip(found.example_ids, found.labels.values, strict=True)), found.revision


def anew(client, model, x, labels):
    """Answers of a model that is adapted to these examples at once."""
    return answers(
        client, client.adaptations.Adapt(pb.AdaptRequest(model=model, support=support(x, labels))).adaptation
    )


@pytest.mark.parametrize("model", ["prototypes", "weighing"])
def test_examples_and_classes_come_and_go_as_if_all_had_been_there_at_once(client, metrics, model):
    x, before = pictures(9), metrics("innerloop_adaptations_updated_total", model=model)
    made = client.adaptations.Adapt(
        pb.AdaptRequest(model=model, support=support(x[:4], ["b", "c", "b", "c"]))
    ).adaptation
    grown = update(client, made, add=support(x[4:7], ["a", "a", "c"]))
    assert list(grown.example_ids) == [4, 5, 6]
    assert (grown.adaptation.id, grown.adaptation.revision, grown.adaptation.support_size) == (made.id, 2, 7)
    assert list(grown.adaptation.classes) == ["a", "b", "c"]
    assert grown.adaptation.create_time == made.create_time
    assert grown.timings.adapt.ToNanoseconds() > 0
    logits, classes = answers(client, made)
    at_once, _ = anew(client, model, x[:7], ["b", "c", "b", "c", "a", "a", "c"])
    assert classes == ["a", "b", "c"]
    np.testing.assert_allclose(logits, at_once, rtol=1e-4, atol=1e-4)
    changed = update(
        client,
        made,
        add=support(x[7:], ["e", "e"]),
        remove_examples=[6, 0],
        remove_classes=["a"],
        relabel=pb.Relabelling(example_ids=[3], labels=pb.Labels(values=["b"])),
        rename_classes=[pb.RenamedClass(label="c", new_label="d")],
    )
    assert list(changed.example_ids) == [7, 8]
    assert listed(client, made) == ({1: "d", 2: "b", 3: "b", 7: "e", 8: "e"}, 3)
    logits, _ = answers(client, made)
    at_once, _ = anew(client, model, x[[1, 2, 3, 7, 8]], ["d", "b", "b", "e", "e"])
    np.testing.assert_allclose(logits, at_once, rtol=1e-4, atol=1e-4)
    assert len(changed.adaptation.example_weights) == (5 if model == "weighing" else 0)
    assert metrics("innerloop_adaptations_updated_total", model=model) == before + 2


def test_a_model_of_inner_steps_adapts_again_from_all_examples(client):
    x, labels = pictures(6), ["b", "a", "b", "a", "c", "c"]
    options = pb.AdaptOptions(steps=5)
    request = pb.AdaptRequest(model="gradients", support=support(x[:4], labels[:4]), options=options)
    made = client.adaptations.Adapt(request).adaptation
    grown = update(client, made, add=support(x[4:], labels[4:])).adaptation
    assert (grown.steps, len(grown.support_losses)) == (5, 5)
    request.support.CopyFrom(support(x, labels))
    at_once = client.adaptations.Adapt(request).adaptation
    np.testing.assert_allclose(answers(client, made)[0], answers(client, at_once)[0], rtol=1e-3, atol=1e-3)


def test_targets_come_and_go_and_change(client):
    curve, x = curve_support(), np.array([[0.3], [0.4]], np.float32)
    made = client.adaptations.Adapt(pb.AdaptRequest(model="regression", support=curve)).adaptation
    update(client, made, add=regression_support(x, x), remove_examples=[0, 1])
    targets = np.array([[7.0], [8.0]], np.float32)
    update(client, made, relabel=pb.Relabelling(example_ids=[6, 3], targets=tensor(targets)))
    found = client.adaptations.ListExamples(pb.ListExamplesRequest(adaptation_id=made.id))
    known = array(curve.targets)
    assert list(found.example_ids) == [2, 3, 4, 5, 6]
    np.testing.assert_array_equal(array(found.targets)[:, 0], [known[2, 0], 8.0, known[4, 0], x[0, 0], 7.0])
    query = inputs(np.linspace(-1, 1, 7, dtype=np.float32)[:, None])
    xs = np.concatenate([np.frombuffer(curve.inputs.tensor.data, np.float32)[2:, None], x])
    at_once = pb.AdaptPredictRequest(
        model="regression", support=regression_support(xs, array(found.targets)), query=query
    )
    predicted = client.adaptations.Predict(pb.PredictRequest(adaptation_id=made.id, query=query)).predictions
    wanted = client.adaptations.AdaptPredict(at_once).predictions
    np.testing.assert_allclose(array(predicted.values), array(wanted.values), rtol=1e-3, atol=1e-4)


def test_files_and_tensors_of_any_type_go_together(client):
    def png(level):
        buffer = BytesIO()
        Image.new("L", (8, 8), level).save(buffer, "PNG")
        return buffer.getvalue()

    made = client.adaptations.Adapt(adapt_request(ways=2)).adaptation
    update(client, made, add=pb.Support(inputs=images(png(10)), labels=pb.Labels(values=["dark"])))
    update(client, made, add=support(np.full((1, 1, 8, 8), 250, np.float32), ["bright"]))
    request = pb.PredictRequest(adaptation_id=made.id, query=images(png(12), png(248)))
    predictions = client.adaptations.Predict(request).predictions
    assert [predictions.classes[best] for best in array(predictions.probabilities).argmax(1)] == ["dark", "bright"]


def test_repeating_a_request_changes_nothing_more(client, fails):
    made = client.adaptations.Adapt(adapt_request()).adaptation
    more = support(pictures(1, seed=5), ["more"])
    first = update(client, made, add=more, request_id="once")
    other = update(client, made, add=more)
    again = update(client, made, add=more, request_id="once")
    assert (first.adaptation.revision, other.adaptation.revision, again.adaptation.revision) == (2, 3, 3)
    assert list(again.example_ids) == list(first.example_ids) == [3]
    assert list(other.example_ids) == [4]
    request = pb.UpdateAdaptationRequest(adaptation_id=made.id, remove_examples=[0], request_id="once")
    refused = fails(client.adaptations.UpdateAdaptation, request)
    assert (refused.code, set(refused.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, {"request_id"})


def test_updates_at_once_all_happen_one_after_the_other(client):
    made = client.adaptations.Adapt(adapt_request()).adaptation
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda n: update(client, made, add=support(pictures(1, seed=n), [f"new {n}"])), range(8)))
    assert sorted(each.adaptation.revision for each in done) == [*range(2, 10)]
    labels = {each.example_ids[0]: f"new {n}" for n, each in enumerate(done)}
    assert listed(client, made)[0] == {0: "class 0", 1: "class 1", 2: "class 2", **labels}


def test_an_update_of_another_revision_than_expected_is_refused_with_the_present_one(client):
    made = client.adaptations.Adapt(adapt_request()).adaptation
    update(client, made, remove_classes=["class 0"], expected_revision=1)
    with pytest.raises(grpc.RpcError) as refused:
        update(client, made, remove_classes=["class 1"], expected_revision=1)
    found = problem(refused.value)
    assert (found.code, found.reason, found.facts) == (
        grpc.StatusCode.ABORTED,
        "REVISION_CHANGED",
        {"revision": "2"},
    )
    assert "is 2, not 1" in found.message


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({}, "message"),
        ({"relabel": pb.Relabelling(labels=pb.Labels())}, "message"),
        ({"remove_examples": [0], "support": support(pictures(2), "ab")}, "support"),
        ({"remove_examples": [3]}, "remove_examples"),
        ({"remove_examples": [1, 1]}, "remove_examples"),
        ({"remove_classes": ["dog"]}, "remove_classes"),
        ({"remove_classes": ["class 1", "class 2"]}, "adaptation"),
        ({"remove_examples": [0, 1, 2]}, "adaptation"),
        ({"relabel": pb.Relabelling(example_ids=[9], labels=pb.Labels(values=["a"]))}, "relabel.example_ids"),
        ({"relabel": pb.Relabelling(example_ids=[1])}, "relabel.labels"),
        ({"relabel": pb.Relabelling(example_ids=[1], labels=pb.Labels(values="ab"))}, "relabel.labels"),
        (
            {"relabel": pb.Relabelling(example_ids=[1], labels=pb.Labels(values="a")), "remove_examples": [1]},
            "relabel.example_ids",
        ),
        ({"rename_classes": [pb.RenamedClass(label="dog", new_label="cat")]}, "rename_classes"),
        ({"rename_classes": [pb.RenamedClass(label="class 0", new_label="x" * 2000)]}, "rename_classes"),
        ({"add": support(pictures(2), "abc")}, "add.labels"),
        ({"add": support(np.zeros((1, 3), np.uint8), "a")}, "add.inputs.tensor.shape"),
        ({"add": support(pictures(40), [f"class {n}" for n in range(40)])}, "adaptation"),
        ({"remove_examples": [0], "request_id": "x" * 200}, "request_id"),
    ],
)
def test_what_can_not_be_is_refused_by_its_path_and_nothing_happens(client, fails, fields, path):
    made = client.adaptations.Adapt(adapt_request()).adaptation
    refused = fails(client.adaptations.UpdateAdaptation, pb.UpdateAdaptationRequest(adaptation_id=made.id, **fields))
    assert (refused.code, set(refused.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, {path})
    assert listed(client, made) == ({0: "class 0", 1: "class 1", 2: "class 2"}, 1)


def test_a_head_of_fixed_width_takes_no_more_classes_than_it_has(client, fails):
    made = client.adaptations.Adapt(adapt_request("gradients")).adaptation
    more = support(pictures(3), "abc")
    refused = fails(client.adaptations.UpdateAdaptation, pb.UpdateAdaptationRequest(adaptation_id=made.id, add=more))
    assert "has 6 classes, this model takes at most 5" in refused.fields["adaptation"]
    assert update(client, made, add=support(pictures(2), "ab")).adaptation.revision == 2


def test_without_the_examples_before_all_must_be_sent(client, fails):
    x = pictures(5)
    request = adapt_request(options=pb.AdaptOptions(forget_examples=True))
    made = client.adaptations.Adapt(request).adaptation
    removing = pb.UpdateAdaptationRequest(adaptation_id=made.id, remove_examples=[0])
    for _ in range(2):
        refused = fails(client.adaptations.UpdateAdaptation, removing)
        assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "EXAMPLES_NOT_KEPT")
        assert "`support`" in refused.message
        changed = update(client, made, support=support(x, "ababc"))
        assert not changed.example_ids, "the examples are as little kept as those before"
    assert (changed.adaptation.revision, list(changed.adaptation.classes)) == (3, ["a", "b", "c"])
    np.testing.assert_allclose(
        answers(client, made)[0], anew(client, "prototypes", x, "ababc")[0], rtol=1e-4, atol=1e-4
    )
    listing = pb.ListExamplesRequest(adaptation_id=made.id)
    assert fails(client.adaptations.ListExamples, listing).reason == "EXAMPLES_NOT_KEPT"


def test_all_examples_at_once_take_the_place_of_those_that_are_kept_under_new_ids(client):
    made = client.adaptations.Adapt(adapt_request()).adaptation
    changed = update(client, made, support=support(pictures(2), "ab"))
    assert list(changed.example_ids) == [3, 4]
    assert listed(client, made) == ({3: "a", 4: "b"}, 2)


def test_a_stream_never_answers_with_classes_that_its_client_was_not_told(client):
    made = client.adaptations.Adapt(adapt_request()).adaptation
    asked, queries = queue.SimpleQueue(), inputs(pictures(2))

    def ask(**fields):
        asked.put(pb.StreamPredictRequest(query=queries, **fields))
        return next(answered)

    answered = client.adaptations.StreamPredict(iter(asked.get, None))
    assert len(ask(sequence=1, adaptation_id=made.id).predictions.classes) == 3
    update(client, made, relabel=pb.Relabelling(example_ids=[0], labels=pb.Labels(values=["class 0"])))
    assert not ask(sequence=2).predictions.classes, "they are the same"
    update(client, made, rename_classes=[pb.RenamedClass(label="class 0", new_label="new")])
    refused = ask(sequence=3).error
    info = ErrorInfo()
    assert any(detail.Unpack(info) for detail in refused.details)
    assert (refused.code, info.reason) == (grpc.StatusCode.UNAVAILABLE.value[0], "CLASSES_CHANGED")
    named = ask(sequence=4, adaptation_id=made.id).predictions
    assert list(named.classes) == ["class 1", "class 2", "new"]
    assert array(ask(sequence=5).predictions.probabilities).shape == (2, 3)
    asked.put(None)
    assert not list(answered)


def test_nobody_updates_what_is_gone(client, fails):
    made = client.adaptations.Adapt(adapt_request()).adaptation
    client.adaptations.DeleteAdaptation(pb.DeleteAdaptationRequest(adaptation_id=made.id))
    request = pb.UpdateAdaptationRequest(adaptation_id=made.id, remove_examples=[0])
    assert fails(client.adaptations.UpdateAdaptation, request).reason == "ADAPTATION_NOT_FOUND"
    listing = pb.ListExamplesRequest(adaptation_id=made.id)
    assert fails(client.adaptations.ListExamples, listing).reason == "ADAPTATION_NOT_FOUND"

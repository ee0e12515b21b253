"""What both clients promise of every call that goes well."""

import json
from enum import Enum

import numpy as np
import pytest
import torch
from twins import collect

from innerloop import AdaptationNotFoundError, InvalidArgumentError, ModelNotFoundError
from innerloop.v1 import adaptation_pb2 as pb

IMAGES = np.zeros((4, 1, 28, 28), np.uint8)


def pandas_like(values):
    """What of a pandas Series matters: it can be listed, and is no array."""
    return type("Series", (), {"tolist": lambda _: values, "__iter__": lambda _: iter(values)})()


class Animal(Enum):
    CAT = 1
    DOG = 2


@pytest.mark.parametrize(
    "labels",
    [["cat", "dog", "cat", "dog"], [7, -1, 7, -1], [Animal.CAT, Animal.DOG] * 2, [("a", 1), ("b", 2)] * 2],
    ids=["strings", "numbers", "enums", "tuples"],
)
async def test_labels_come_back_as_the_objects_that_the_caller_gave(client, labels):
    adaptation = await client.adapt("grey", IMAGES, labels)
    predictions = await adaptation.predict(IMAGES[:3])
    assert adaptation.classes == predictions.classes == (labels[0], labels[1])
    assert [p.label for p in predictions] == predictions.labels == [labels[0], labels[1], labels[0]]
    assert [type(p.label) for p in predictions] == [type(labels[0])] * 3
    assert set(predictions[0].probabilities) == set(labels)


async def test_labels_of_an_array_come_back_as_plain_numbers(client):
    adaptation = await client.adapt("grey", IMAGES, np.array([3, 5, 3, 5]))
    assert json.dumps(adaptation.classes) == "[3, 5]"


@pytest.mark.parametrize(
    "labels",
    [
        list(torch.tensor([3, 5, 3, 5])),
        [np.int64(3), np.array(5), torch.tensor(3), 5],
        torch.tensor([3, 5, 3, 5]),
        pandas_like([3, 5, 3, 5]),
    ],
    ids=["tensors", "mixture", "tensor", "series"],
)
async def test_labels_that_hold_equal_numbers_are_one_class(client, labels):
    adaptation = await client.adapt("grey", IMAGES, labels)
    assert adaptation.classes == (3, 5)
    assert [type(label) for label in adaptation.classes] == [int, int]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, "1", 2, 2], "labels 1 and '1' both read '1'"),
        ([[1], [2], [1], [2]], "unhashable"),
        ("abcd", "in a list"),
        (np.array(3), "in a list"),
        (["\ud800", "b", "c", "d"], "not valid Unicode"),
        (["a", None, "b", "c"], "label of support example 1 is None"),
        ([1.0, 2.0, float("nan"), 1.0], "label of support example 2 is NaN"),
        (["a", "b", "", " \t"], "example 2 is an empty text, the label of support example 3 is an empty text"),
        (np.array([1.0, 2.0, np.nan, 1.0]), "label of support example 2 is NaN"),
        (np.ma.masked_equal([1, 2, 1, 2], 2), "label of support example 1 is None"),
        (list(torch.tensor([[1], [2], [1], [2]])), r"array of shape \(1,\).*reshape"),
        ({"a": 1}, "order"),
        ([1, 2], "2 labels for 4 inputs"),
    ],
)
async def test_labels_that_can_not_be_sent_or_told_apart_again_are_refused(client, server, labels, message):
    with pytest.raises(InvalidArgumentError, match=message):
        await client.adapt("grey", IMAGES, labels)
    assert not server.requests("Adapt")


@pytest.mark.parametrize("answers", [{}, {"labels": list("abab"), "targets": [1, 2, 3, 4]}], ids=["none", "both"])
async def test_labels_or_targets_are_needed_and_not_both(client, answers):
    with pytest.raises(InvalidArgumentError, match="either labels"):
        await client.adapt("grey", IMAGES, **answers)


async def test_predictions_are_a_sequence_and_arrays_of_the_same(client):
    adaptation = await client.adapt("grey", IMAGES, list("abab"))
    predictions = await adaptation.predict(IMAGES, return_logits=True)
    assert len(predictions) == len(list(predictions)) == 4
    assert predictions.probabilities.shape == predictions.logits.shape == (4, 2)
    for row, prediction in enumerate(predictions):
        assert (
            prediction.probability
            == prediction.probabilities[prediction.label]
            == predictions.probabilities[row, row % 2]
        )
        assert list(prediction.logits.values()) == predictions.logits[row].tolist()
    assert [p.label for p in predictions[1:3]] == ["b", "a"]
    assert predictions[-1].label == "b"
    with pytest.raises(IndexError):
        predictions[4]


async def test_logits_come_only_when_asked_for(client):
    adaptation = await client.adapt("grey", IMAGES, list("abab"))
    predictions = await adaptation.predict(IMAGES)
    with pytest.raises(AttributeError, match="return_logits=True"):
        _ = predictions.logits


async def test_regression_takes_targets_and_answers_values(client, server):
    adaptation = await client.adapt("waves", [0.0, 0.5, 1.0], targets=[1, 2, 3])
    predictions = await adaptation.predict([0.25, 0.75])
    targets = server.requests("Adapt")[0].support.targets
    assert (list(targets.shape), np.frombuffer(targets.data, "<f4").tolist()) == ([3, 1], [1, 2, 3])
    assert [p.value for p in predictions] == predictions.values[:, 0].tolist() == [0.0, 2.0]
    with pytest.raises(AttributeError, match="regression"):
        _ = predictions[0].label


async def test_a_target_that_is_no_number_is_refused(client, server):
    masked = np.ma.masked_equal([1.0, 2.0, -1.0], -1.0)
    cases = (([1, 2, float("nan")], "example 2 holds NaN"), ([1, 2, "x"], "targets"), (1.0, "list"), (masked, "masked"))
    for targets, message in cases:
        with pytest.raises(InvalidArgumentError, match=message):
            await client.adapt("waves", [0.0, 0.5, 1.0], targets=targets)
    assert not server.requests("Adapt")


async def test_options_reach_the_server(client, server):
    await client.adapt("grey", IMAGES, list("abab"), steps=3, time_to_live=90.5, forget_examples=True)
    await client.adapt("grey", IMAGES, list("abab"))
    given, default = (request.options for request in server.requests("Adapt"))
    assert (given.steps, given.time_to_live.ToTimedelta().total_seconds()) == (3, 90.5)
    assert (given.forget_examples, default.forget_examples) == (True, False)
    assert not default.HasField("steps")
    assert not default.HasField("time_to_live")


async def test_an_impossible_option_is_refused_before_anything_is_sent(client, server):
    with pytest.raises(InvalidArgumentError, match="steps must be"):
        await client.adapt("grey", IMAGES, list("abab"), steps=-1)
    assert not server.received


async def test_every_call_carries_an_id_of_its_own_and_adapt_the_same_in_its_request(client, server):
    await client.adapt("grey", IMAGES, list("abab"))
    await client.adapt("grey", IMAGES, list("abab"))
    await client.models()
    ids = [received.request_id for received in server.received]
    assert all(ids)
    assert len(set(ids)) == 3
    assert [request.request_id for request in server.requests("Adapt")] == ids[:2]


async def test_adapt_predict_answers_in_one_round_trip(client, server):
    predictions = await client.adapt_predict("grey", IMAGES, [1, 2, 1, 2], query=IMAGES[:1], steps=2)
    assert predictions[0].label == 1
    assert [received.method for received in server.received] == ["AdaptPredict"]


async def test_an_adaptation_describes_itself(client):
    adaptation = await client.adapt("grey", IMAGES, list("abab"), steps=2)
    info = adaptation.info
    assert (adaptation.id, adaptation.model, adaptation.classes) == (info.id, "grey", ("a", "b"))
    assert adaptation.support_losses == (1.5, 0.5)
    assert adaptation.example_weights == info.example_weights == (1.25, 0.75)
    assert (info.model_version, info.support_size, info.steps, info.size_bytes) == ("v1", 4, 2, 1024)
    assert info.timings.adapt == pytest.approx(0.002)


async def test_an_adaptation_is_found_again_by_its_id(client):
    made = await client.adapt("grey", IMAGES, [1, 2, 1, 2])
    found = await client.get_adaptation(made.id)
    assert (await found.predict(IMAGES)).labels == ["1", "2", "1", "2"]


async def test_listing_goes_through_all_pages(client):
    made = [await client.adapt("grey", IMAGES, list("abab")) for _ in range(5)]
    await client.adapt("colour", np.zeros((2, 3, 32, 32), np.uint8), list("ab"))
    assert [a.id for a in await collect(client.list_adaptations("grey"))] == [a.id for a in made]
    assert len(await collect(client.list_adaptations())) == 6


async def test_deleting_an_adaptation_makes_the_server_forget_it(client):
    adaptation = await client.adapt("grey", IMAGES, list("abab"))
    await client.delete_adaptation(adaptation.id)
    with pytest.raises(AdaptationNotFoundError):
        await client.get_adaptation(adaptation.id)
    with pytest.raises(AdaptationNotFoundError):
        await client.delete_adaptation(adaptation.id)
    await adaptation.delete()


async def test_models_are_described(client):
    assert [m.name for m in await client.models()] == ["grey", "colour", "waves", "vectors"]
    grey = await client.model("grey")
    assert (grey.input_shape, grey.input_data_type, grey.state, grey.task_kind) == (
        (1, 28, 28),
        "uint8",
        "ready",
        "classification",
    )
    assert (grey.limits.trained_ways, grey.metrics[0].value) == (5, 0.97)
    with pytest.raises(ModelNotFoundError):
        await client.model("absent")


async def test_models_are_loaded_and_unloaded(client, server):
    assert (await client.load_model("fresh")).name == "fresh"
    await client.unload_model("fresh")
    assert "fresh" not in server.models


async def test_a_large_answer_is_received_whole(client):
    adaptation = await client.adapt("vectors", np.eye(5, 4), list("abcde"))
    predictions = await adaptation.predict(np.zeros((300_000, 4), np.uint8))
    assert predictions.probabilities.nbytes == 6_000_000
    assert predictions[-1].label == "e"


@pytest.mark.parametrize("priority", ["batch", "normal", "interactive"])
async def test_every_request_of_a_client_says_how_urgent_it_is(make_client, server, priority):
    client = make_client(priority=priority)
    adaptation = await client.adapt("grey", IMAGES, [1, 2, 1, 2])
    await adaptation.predict(IMAGES)
    await collect(adaptation.predict_stream([IMAGES]))
    await client.adapt_predict("grey", IMAGES, [1, 2, 1, 2], query=IMAGES)
    asked = [each for method in ("Adapt", "Predict", "AdaptPredict") for each in server.requests(method)]
    asked += server.requests("query")
    wanted = {"batch": pb.PRIORITY_BATCH, "normal": pb.PRIORITY_UNSPECIFIED, "interactive": pb.PRIORITY_INTERACTIVE}
    assert {each.priority for each in asked} == {wanted[priority]}
    assert len(asked) >= 4


async def test_a_priority_that_does_not_exist_is_refused(make_client):
    with pytest.raises(InvalidArgumentError, match="batch, normal, interactive"):
        make_client(priority="high")

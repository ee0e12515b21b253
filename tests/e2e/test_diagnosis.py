"""What a server says about the labels of support examples, with and without front ends."""

import json
import math

import grpc
import numpy as np
import pytest
from bundles import GRADIENTS, PROTOTYPES, REGRESSION, write_bundle, write_calibrated
from examples import adapt_request, curve_support, pictures
from running import Metrics, connect, wait_until
from typer.testing import CliRunner
from wire import inputs, problem, support

from innerloop import AsyncClient, Client, ExamplesNotKeptError
from innerloop.v1 import adaptation_pb2 as pb
from innerloop_command.app import app
from innerloop_learner.diagnosis import doubts_of

pytestmark = [pytest.mark.with_and_without_front_ends, pytest.mark.rarely("alone")]

LABELS = ["a", "b", "a", "c", "b", "a", "a"]


@pytest.fixture(scope="module")
def diagnosing(tmp_path_factory, start_server):
    """A server of models that can be diagnosed, and of one that can't."""
    folder = tmp_path_factory.mktemp("diagnosing")
    write_calibrated(folder / "calibrated", PROTOTYPES)
    write_bundle(folder / "plain", PROTOTYPES)
    write_bundle(folder / "gradients", GRADIENTS)
    write_bundle(folder / "regression", REGRESSION)
    with start_server(folder, owner_queue_requests=4, store=f"sqlite:{folder.parent / 'store'}") as server:
        yield server


@pytest.fixture
def sdk(diagnosing):
    with Client(diagnosing.target) as client:
        yield client


@pytest.fixture
def wire(diagnosing):
    with connect(diagnosing) as client:
        yield client


@pytest.mark.parametrize("model", ["calibrated", "plain", "gradients"])
def test_doubts_are_those_of_adapting_without_each_example(sdk, model):
    x = pictures(len(LABELS))
    diagnosis = sdk.adapt(model, x, LABELS, diagnose=True).diagnosis
    for place, label in enumerate(LABELS):
        if label == "c":
            assert diagnosis.doubts[place] is None
            assert diagnosis.likely_labels[place] == "c"
            continue
        others = [each for each in range(len(LABELS)) if each != place]
        rest = [LABELS[each] for each in others]
        (answer,) = sdk.adapt_predict(model, x[others], rest, query=x[[place]])
        doubt = doubts_of(np.float64(answer.probabilities[label]), len(set(LABELS)))
        assert diagnosis.doubts[place] == pytest.approx(doubt, rel=1e-3, abs=1e-4)
        assert diagnosis.likely_labels[place] == answer.label
    expected = diagnosis.expected_accuracy
    right = sum(said == label for said, label in zip(diagnosis.likely_labels, LABELS, strict=True) if label != "c")
    assert expected.examples == 6
    assert expected.value == pytest.approx(right / 6)
    assert expected.low < expected.value < expected.high or expected.value in (0, 1)


def test_the_adaptation_is_that_of_a_caller_who_does_not_ask(wire):
    request = adapt_request("plain", shots=2)
    plain = wire.adaptations.Adapt(request)
    request.diagnose = True
    asked = wire.adaptations.Adapt(request)
    assert not plain.HasField("diagnosis")
    assert len(asked.diagnosis.doubts) == len(asked.diagnosis.likely_classes) == 6
    answers = [
        wire.adaptations.Predict(pb.PredictRequest(adaptation_id=made.adaptation.id, query=inputs(pictures(3, 9))))
        for made in (plain, asked)
    ]
    assert answers[0].predictions == answers[1].predictions


def test_one_shot_says_that_it_says_nothing(wire):
    found = wire.adaptations.Adapt(adapt_request("plain", diagnose=True)).diagnosis
    assert all(map(math.isnan, found.doubts))
    assert list(found.likely_classes) == [0, 1, 2]
    assert not found.HasField("expected_accuracy")
    assert not found.alike


def test_regressions_and_very_many_examples_are_refused(wire):
    with pytest.raises(grpc.RpcError) as regression:
        wire.adaptations.Adapt(pb.AdaptRequest(model="regression", support=curve_support(), diagnose=True))
    assert "is for models that classify" in problem(regression.value).fields["diagnose"]
    many = support(pictures(501), [f"{place % 2}" for place in range(501)])
    with pytest.raises(grpc.RpcError) as refused:
        wire.adaptations.Adapt(pb.AdaptRequest(model="plain", support=many, diagnose=True))
    assert "at most 500 examples" in problem(refused.value).fields["diagnose"]


def test_a_diagnosis_that_can_not_be_done_in_time_is_refused_or_ends_and_nothing_is_kept(wire):
    def kept():
        return [each.id for each in wire.adaptations.ListAdaptations(pb.ListAdaptationsRequest()).adaptations]

    before = kept()
    request = adapt_request("gradients", shots=2, options=pb.AdaptOptions(steps=100), diagnose=True)
    with pytest.raises(grpc.RpcError) as late:
        wire.adaptations.Adapt(request, timeout=0.05)
    assert late.value.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)
    request.diagnose = False
    made = wire.adaptations.Adapt(request).adaptation.id
    assert kept() == [made, *before]


def test_of_very_many_examples_several_are_left_out_together(sdk):
    labels = [f"{place % 3}" for place in range(250)]
    diagnosis = sdk.adapt("plain", pictures(250), labels, diagnose=True).diagnosis
    assert diagnosis.expected_accuracy.examples == 250
    assert None not in diagnosis.doubts


def test_a_repeated_request_has_the_same_adaptation_and_diagnosis(wire):
    request = adapt_request("plain", shots=2, diagnose=True, request_id="again")
    first, second = wire.adaptations.Adapt(request), wire.adaptations.Adapt(request)
    assert first.adaptation.id == second.adaptation.id
    assert first.diagnosis == second.diagnosis


def test_a_request_repeated_after_its_classes_have_changed_says_nothing_of_others(wire):
    request = adapt_request("plain", shots=2, diagnose=True, request_id="changed since")
    made = wire.adaptations.Adapt(request).adaptation
    others = support(pictures(4), ["x", "y", "x", "y"])
    wire.adaptations.UpdateAdaptation(pb.UpdateAdaptationRequest(adaptation_id=made.id, support=others))
    repeated = wire.adaptations.Adapt(request)
    assert (repeated.adaptation.id, list(repeated.adaptation.classes)) == (made.id, ["x", "y"])
    assert not repeated.HasField("diagnosis")


def test_the_same_pictures_under_two_labels_are_named(sdk):
    x = pictures(2)
    adaptation = sdk.adapt("plain", np.concatenate([x[[0]]] * 4 + [x[[1]]] * 2), list("ababcc"), diagnose=True)
    assert [(each.first, each.second) for each in adaptation.diagnosis.alike] == [("a", "b")]
    adaptation.add(pictures(1), ["d"])
    assert adaptation.diagnosis is None, "the examples are others"


def test_doubtful_examples_are_counted_and_left_out_tasks_are_not_tasks_of_callers(sdk, diagnosing):
    metrics = Metrics(diagnosing.metrics_url)

    def counted():
        verdicts = [
            metrics("innerloop_examples_diagnosed_total", model="gradients", verdict=each)
            for each in ("right", "doubtful")
        ]
        return (*verdicts, metrics("innerloop_support_size_count", model="gradients"))

    before = counted()
    diagnosis = sdk.adapt("gradients", pictures(len(LABELS)), LABELS, diagnose=True).diagnosis
    wait_until(lambda: sum(counted()[:2]) == sum(before[:2]) + 6)
    doubtful = len(diagnosis.doubtful())
    assert np.subtract(counted(), before).tolist() == [6 - doubtful, doubtful, 1]


@pytest.mark.parametrize("model", ["calibrated", "gradients"])
def test_an_adaptation_that_has_changed_is_diagnosed_by_the_ids_of_its_examples(sdk, diagnosing, model):
    x, counted = pictures(8), Metrics(diagnosing.metrics_url)

    def diagnosed():
        return sum(
            counted("innerloop_examples_diagnosed_total", model=model, verdict=each) for each in ("right", "doubtful")
        )

    adaptation = sdk.adapt(model, x[:5], list("babac"))
    adaptation.update(x[5:], list("dab"), remove=[4], relabel={1: "d"})
    before = diagnosed()
    found = adaptation.diagnose()
    stay, labels = [0, 1, 2, 3, 5, 6, 7], list("bdbadab")
    assert found.ids == tuple(stay)
    wanted = sdk.adapt(model, x[stay], labels, diagnose=True).diagnosis
    assert wanted.ids == tuple(range(7))
    assert found.doubts == pytest.approx(wanted.doubts, rel=1e-3, abs=1e-4)
    assert found[1:3] == wanted[1:3]
    assert [each[:2] for each in found.alike] == [each[:2] for each in wanted.alike]
    wait_until(lambda: diagnosed() == before + 14)
    assert adaptation.info.revision == 2, "it is as it was"


def test_an_adaptation_without_examples_or_labels_is_not_diagnosed(sdk, wire):
    forgotten = sdk.adapt("plain", pictures(4), list("abab"), forget_examples=True)
    with pytest.raises(ExamplesNotKeptError):
        forgotten.diagnose()
    curve = wire.adaptations.Adapt(pb.AdaptRequest(model="regression", support=curve_support())).adaptation
    with pytest.raises(grpc.RpcError) as refused:
        wire.adaptations.ListExamples(pb.ListExamplesRequest(adaptation_id=curve.id, diagnose=True))
    assert "is for models that classify" in problem(refused.value).fields["diagnose"]


def test_the_shell_diagnoses_an_adaptation(sdk, diagnosing):
    adaptation = sdk.adapt("plain", pictures(4), list("abab"))
    adaptation.remove([1])
    shell = ["examples", adaptation.id, "--server", diagnosing.target, "--diagnose"]
    shown = json.loads(CliRunner().invoke(app, [*shell, "--json"]).stdout)
    assert [each["id"] for each in shown["examples"]] == shown["diagnosis"]["ids"] == [0, 2, 3]
    assert "accuracy to expect" in CliRunner().invoke(app, shell).stderr


async def test_the_asynchronous_client_asks_too(diagnosing):
    async with AsyncClient(diagnosing.target) as client:
        adaptation = await client.adapt("plain", pictures(4), [1, 1, 2, 2], diagnose=True)
        assert set(adaptation.diagnosis.likely_labels) <= {1, 2}
        plain = await client.adapt("plain", pictures(4), [1, 1, 2, 2])
        assert plain.diagnosis is None
        assert (await plain.diagnose()).doubts == pytest.approx(adaptation.diagnosis.doubts, rel=1e-3, abs=1e-4)

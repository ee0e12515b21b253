"""Answers of calibrated models, over the wire and by the SDK, with and without front ends."""

import numpy as np
import pytest
from bundles import GRADIENTS, PROTOTYPES, REGRESSION, a_calibration, write_bundle, write_calibrated
from examples import curve_support, picture_support, pictures
from running import Metrics, connect, wait_until
from wire import array, inputs

from innerloop import AsyncClient, Client, InvalidArgumentError, MissingAnswerError
from innerloop.v1 import adaptation_pb2 as pb
from innerloop.v1 import model_pb2
from innerloop_learner.calibration import FALSE_ALARMS, known, label_sets, probabilities

pytestmark = [pytest.mark.with_and_without_front_ends, pytest.mark.rarely("alone")]

LABELS = ["a", "b", "c"]


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory, start_server):
    """A server of calibrated models, and of one that is not."""
    folder = tmp_path_factory.mktemp("calibrated")
    write_calibrated(folder / "prototypes", PROTOTYPES)
    write_calibrated(folder / "gradients", GRADIENTS)
    write_calibrated(folder / "regression", REGRESSION)
    write_bundle(folder / "plain", PROTOTYPES)
    with start_server(folder) as server:
        yield server


@pytest.fixture
def sdk(calibrated):
    with Client(calibrated.target) as client:
        yield client


@pytest.fixture
def wire(calibrated):
    with connect(calibrated) as client:
        yield client


def ask(wire, model="prototypes", **fields):
    """The answers of a model to four queries, logits included, by Predict."""
    made = wire.adaptations.Adapt(pb.AdaptRequest(model=model, support=picture_support(3)))
    request = pb.PredictRequest(
        adaptation_id=made.adaptation.id, query=inputs(pictures(4, seed=1)), return_logits=True, **fields
    )
    return wire.adaptations.Predict(request).predictions


@pytest.mark.parametrize("model", ["prototypes", "gradients"])
def test_answers_are_those_of_the_learners_code_on_the_same_logits(wire, model):
    answers = ask(wire, model, coverage=0.8)
    logits, figures = array(answers.logits), a_calibration().tasks[0]
    np.testing.assert_allclose(array(answers.probabilities), probabilities(logits, figures), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(array(answers.known), known(logits, figures), rtol=1e-5)
    sets = np.frombuffer(answers.label_sets.data, np.uint8).reshape(4, 3)
    np.testing.assert_array_equal(sets, label_sets(logits, figures, 0.8))
    np.testing.assert_allclose(answers.false_alarms, FALSE_ALARMS, rtol=1e-6)
    np.testing.assert_allclose(answers.known_thresholds, figures.thresholds, rtol=1e-6)


def test_logits_and_labels_are_those_of_the_model_that_is_not_calibrated(wire):
    sure, plain = ask(wire), ask(wire, "plain")
    np.testing.assert_allclose(array(sure.logits), array(plain.logits), rtol=1e-5)
    assert (array(sure.probabilities).argmax(1) == array(plain.probabilities).argmax(1)).all()
    assert array(sure.probabilities).max() < array(plain.probabilities).max(), "the temperature is 2"


def test_a_client_that_asks_for_nothing_new_gets_no_sets_and_a_plain_model_says_nothing_new(wire):
    assert not ask(wire).HasField("label_sets")
    plain = ask(wire, "plain")
    assert not plain.HasField("known")
    assert not plain.false_alarms


def test_adapt_predict_answers_as_predict_does(wire):
    request = pb.AdaptPredictRequest(
        model="prototypes", support=picture_support(3), query=inputs(pictures(4, seed=1)), coverage=0.8
    )
    together, apart = wire.adaptations.AdaptPredict(request).predictions, ask(wire, coverage=0.8)
    np.testing.assert_allclose(array(together.known), array(apart.known), rtol=1e-4)
    assert together.label_sets == apart.label_sets
    request.keep = True
    assert wire.adaptations.AdaptPredict(request).predictions.label_sets == apart.label_sets


def test_models_say_whether_they_are_calibrated(sdk, wire):
    assert {model.name: model.calibrated for model in sdk.models()} == {
        "gradients": True,
        "plain": False,
        "prototypes": True,
        "regression": True,
    }
    assert wire.models.GetModel(model_pb2.GetModelRequest(model="plain")).model.calibrated is False


def test_the_sdk_says_what_is_unknown(sdk):
    with sdk.adapt("prototypes", pictures(3), LABELS) as adaptation:
        answers = adaptation.predict(pictures(40, seed=2), coverage=0.8)
    known_at = {rate: answers.passes_for_known(rate) for rate in FALSE_ALARMS}
    assert [known_at[rate].sum() for rate in FALSE_ALARMS] == sorted(
        (known_at[rate].sum() for rate in FALSE_ALARMS), reverse=True
    )
    for row, prediction in enumerate(answers):
        assert prediction.known == answers.known[row]
        assert prediction.label_or(None) == (prediction.label if known_at[0.05][row] else None)
        assert prediction.label_or("?", false_alarms=0.2) == (prediction.label if known_at[0.2][row] else "?")
        assert list(prediction.label_set) == sorted(
            prediction.label_set, key=prediction.probabilities.get, reverse=True
        )
        assert not prediction.label_set or prediction.label_set[0] == prediction.label
    assert 0 < known_at[0.05].sum() < 40


def test_the_sdk_says_what_it_can_not_say(sdk):
    with sdk.adapt("prototypes", pictures(3), LABELS) as adaptation:
        first = adaptation.predict(pictures(1))[0]
        with pytest.raises(InvalidArgumentError, match=r"no threshold for 0\.03 false alarms; there are those"):
            first.label_or(None, false_alarms=0.03)
        with pytest.raises(MissingAnswerError, match="ask for them with coverage"):
            _ = first.label_set
        with pytest.raises(InvalidArgumentError, match="must lie between"):
            adaptation.predict(pictures(1), coverage=0.999)
        with pytest.raises(InvalidArgumentError, match="a share of queries"):
            adaptation.predict(pictures(1), coverage=95)
    with sdk.adapt("plain", pictures(3), LABELS) as adaptation:
        first = adaptation.predict(pictures(1))[0]
        assert not hasattr(first, "known")
        with pytest.raises(MissingAnswerError, match="innerloop calibrate"):
            first.label_or(None)
        with pytest.raises(InvalidArgumentError, match="innerloop calibrate"):
            adaptation.predict(pictures(1), coverage=0.9)


def test_regressions_have_intervals_on_demand(sdk):
    support, quantile = curve_support(), a_calibration().tasks[0].quantile(0.9)
    x = np.frombuffer(support.inputs.tensor.data, np.float32).reshape(5, 1)
    with sdk.adapt("regression", x, targets=np.sin(x)) as adaptation:
        answer = adaptation.predict(x, coverage=0.9)[0]
        assert answer.variance == answer.variances[0] == pytest.approx(2.25)
        assert answer.interval == pytest.approx((answer.value - quantile, answer.value + quantile), abs=1e-5)
        assert not hasattr(adaptation.predict(x)[0], "interval")
        assert adaptation.predict(x)[0].variance == answer.variance
    with sdk.adapt("prototypes", pictures(3), LABELS) as adaptation:
        assert not hasattr(adaptation.predict(pictures(1))[0], "variance")


def test_streams_answer_as_predict_does(sdk):
    queries = [pictures(2, seed=seed) for seed in range(3)]
    with sdk.adapt("prototypes", pictures(3), LABELS) as adaptation:
        plain = [adaptation.predict(query, coverage=0.8) for query in queries]
        streamed = list(adaptation.predict_stream(queries, coverage=0.8))
    assert [answers.label_sets for answers in streamed] == [answers.label_sets for answers in plain]
    np.testing.assert_allclose(streamed[2].known, plain[2].known, rtol=1e-4)
    assert streamed[1][0].label_or(None) == plain[1][0].label_or(None)


async def test_the_asynchronous_client_asks_for_a_coverage(calibrated):
    async with AsyncClient(calibrated.target) as client:
        adaptation = await client.adapt("prototypes", pictures(3), LABELS)
        answers = await adaptation.predict(pictures(2), coverage=0.8)
        assert len(answers.label_sets) == 2
        async for streamed in adaptation.predict_stream([pictures(2)], coverage=0.8):
            assert streamed.label_sets == answers.label_sets
        together = await client.adapt_predict("prototypes", pictures(3), LABELS, query=pictures(2), coverage=0.8)
        assert together.label_sets == answers.label_sets


def test_unknown_queries_and_sizes_of_sets_are_counted(sdk, calibrated):
    metrics = Metrics(calibrated.metrics_url)

    def judged(verdict):
        return metrics("innerloop_queries_judged_total", model="gradients", verdict=verdict)

    with sdk.adapt("gradients", pictures(3), LABELS) as adaptation:
        adaptation.predict(pictures(1))
        wait_until(lambda: judged("known") + judged("unknown") > 0)
        before = judged("known") + judged("unknown"), judged("unknown")
        answers = adaptation.predict(pictures(30, seed=3), coverage=0.9)
    unknown = int((~answers.passes_for_known(0.05)).sum())
    assert (judged("known") + judged("unknown") - before[0], judged("unknown") - before[1]) == (30, unknown)
    sizes = [len(labels) for labels in answers.label_sets]
    assert metrics("innerloop_label_set_size_count", model="gradients") >= 30
    assert metrics("innerloop_label_set_size_sum", model="gradients") >= sum(sizes)

"""Requests to domain objects: what is accepted, and what exactly is said of the rest."""

from dataclasses import replace

import numpy as np
import pytest
from fakes import RecordingModel, describe
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from wire import inputs, regression_support, support

from innerloop.v1 import adaptation_pb2 as pb
from innerloop.v1 import tensor_pb2
from innerloop_server.domain.callers import Priority
from innerloop_server.domain.errors import InvalidRequestError
from innerloop_server.transport.codec.requests import (
    READERS,
    RequestLimits,
    decode_adapt,
    decode_adapt_predict,
    decode_keep_options,
    decode_priority,
    decode_query,
)

LIMITS = RequestLimits(support=20, query=10, time_to_live=60.0, max_time_to_live=600.0, message_bytes=2**20)
X = np.arange(4 * 64, dtype=np.uint8).reshape(4, 1, 8, 8)
LABELS = ["dog", "cat", "dog", "eel"]


def adapt(model, changes=None, **fields):
    request = pb.AdaptRequest(model="fake", support=support(X, LABELS), **fields)
    if changes is not None:
        changes(request)
    return decode_adapt(request, model, LIMITS)


def violations(function, *arguments, **keywords):
    with pytest.raises(InvalidRequestError) as refused:
        function(*arguments, **keywords)
    return {violation.field: violation.description for violation in refused.value.violations}


def test_classes_come_sorted_so_that_the_order_of_examples_does_not_matter(fake_model):
    task = adapt(fake_model())
    assert task.classes == ("cat", "dog", "eel")
    assert [task.classes[index] for index in task.support.y] == LABELS


def test_classes_come_in_order_of_appearance_where_that_order_matters(fake_model):
    task = adapt(fake_model(order_matters=True))
    assert task.classes == ("dog", "cat", "eel")
    assert task.support.y.tolist() == [0, 1, 0, 2]
    assert task.support.ways == 3
    assert task.steps == 2


def test_uint8_inputs_are_not_copied(fake_model):
    request = pb.AdaptRequest(support=support(X, LABELS))
    task = decode_adapt(request, fake_model(), LIMITS)
    assert task.support.x.dtype == np.uint8
    assert not task.support.x.flags.owndata
    assert np.array_equal(task.support.x, X)


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float16", "float32", "float64"])
def test_large_inputs_are_read_from_where_they_arrived(fake_model, dtype):
    x = np.random.default_rng(0).integers(0, 256, (10, 1, 200, 200)).astype(dtype)
    for name in ("", "i", "id", "id!"):  # shifts the data, so that they lie unaligned
        content = pb.PredictRequest(adaptation_id=name, query=inputs(x)).SerializeToString()
        received = READERS["Predict"](content)
        assert not received.message.query.tensor.data
        model = fake_model(input_shape=(1, 200, 200))
        query = decode_query(received.message.query, model, LIMITS, received.detached)
        assert np.array_equal(query, x)
        if dtype in ("uint8", "float32"):
            assert np.shares_memory(query, np.frombuffer(content, np.uint8))


def test_the_fingerprint_of_a_request_covers_detached_data():
    x = np.zeros((5, 1, 400, 400), np.uint8)

    def fingerprint(changed=None, request_id="again"):
        x.flat[:2] = 0 if changed is None else changed
        request = pb.AdaptRequest(support=support(x, ["a", "b", "a", "b", "a"]), request_id=request_id)
        received = READERS["Adapt"](request.SerializeToString())
        assert received.detached
        return decode_keep_options(received.message, LIMITS, received.detached).fingerprint

    assert fingerprint() == fingerprint()
    assert fingerprint() != fingerprint(changed=1)
    assert fingerprint(request_id="") == b""


@pytest.mark.parametrize("dtype", ["int64", "float16", "float32", "float64"])
def test_any_element_type_means_the_same_raw_values(fake_model, dtype):
    task = adapt(fake_model(), lambda request: request.support.inputs.CopyFrom(inputs(X.astype(dtype))))
    assert task.support.x.dtype == np.float32
    assert np.array_equal(task.support.x, X)


@pytest.mark.parametrize(
    ("x", "field", "words"),
    [
        (np.zeros((4, 8, 8), np.uint8), "support.inputs.tensor.shape", "must be [N, 1, 8, 8]"),
        (np.zeros((4, 3, 8, 8), np.uint8), "support.inputs.tensor.shape", "must be [N, 1, 8, 8]"),
        (np.zeros((0, 1, 8, 8), np.uint8), "support.inputs.tensor", "is empty"),
        (np.zeros((21, 1, 8, 8), np.uint8), "support.inputs.tensor", "has 21 examples, at most 20"),
        (np.full((4, 1, 8, 8), np.nan), "support.inputs.tensor.data", "not finite"),
        (np.full((4, 1, 8, 8), np.inf, np.float32), "support.inputs.tensor.data", "not finite"),
        (np.full((4, 1, 8, 8), 1e300), "support.inputs.tensor.data", "not finite"),
        (np.full((4, 1, 8, 8), 256.0), "support.inputs.tensor.data", "outside 0 to 255"),
        (np.full((4, 1, 8, 8), -1), "support.inputs.tensor.data", "outside 0 to 255"),
        (X / 255, "support.inputs.tensor.data", "multiply by 255"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_by_path(fake_model, x, field, words):
    found = violations(adapt, fake_model(), lambda request: request.support.inputs.CopyFrom(inputs(x)))
    assert words in found[field]


def test_inputs_that_are_all_black_may_be_of_any_type(fake_model):
    for dtype in ("uint8", "int64", "float32"):
        assert decode_query(inputs(np.zeros((1, 1, 8, 8), dtype)), fake_model(), LIMITS).max() == 0
    assert decode_query(inputs(np.ones((1, 1, 8, 8), np.uint8)), fake_model(), LIMITS).max() == 1


def test_inputs_of_a_float_model_may_have_any_finite_value(fake_model):
    model = fake_model(input_dtype="float32")
    query = decode_query(inputs(np.full((1, 1, 8, 8), -1e9, np.float32)), model, LIMITS)
    assert query.min() == -1e9


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (tensor_pb2.Tensor(shape=[4, 1, 8, 8], data=bytes(256)), "query.tensor.data_type"),
        (tensor_pb2.Tensor(data_type=99, shape=[4, 1, 8, 8], data=bytes(256)), "query.tensor.data_type"),
        (tensor_pb2.Tensor(data_type=1, shape=[4, 1, 8, 8], data=bytes(255)), "query.tensor.data"),
        (tensor_pb2.Tensor(data_type=1, shape=[-4, 1, 8, 8], data=bytes(256)), "query.tensor.shape"),
        (tensor_pb2.Tensor(data_type=1, shape=[2**62, 1, 8, 8], data=bytes(256)), "query.tensor.data"),
        (tensor_pb2.Tensor(data_type=1, shape=[], data=b""), "query.tensor.shape"),
        (tensor_pb2.Tensor(data_type=1, shape=range(10_000), data=b""), "query.tensor.shape"),
    ],
)
def test_malformed_tensors_are_refused_by_path(fake_model, message, field):
    assert field in violations(decode_query, tensor_pb2.Inputs(tensor=message), fake_model(), LIMITS)


def test_missing_inputs_and_texts_are_refused(fake_model):
    assert "query" in violations(decode_query, tensor_pb2.Inputs(), fake_model(), LIMITS)
    texts = tensor_pb2.Inputs(texts=tensor_pb2.Texts(values=["hello"]))
    assert "query.texts" in violations(decode_query, texts, fake_model(), LIMITS)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["a", "b"], "has 2 labels for 4 examples"),
        (["a"] * 4, "has 1 class, at least 2"),
        (["a", "b", "c", "x" * 1001], "more than 1000 characters"),
    ],
)
def test_labels_that_do_not_fit_are_refused(fake_model, labels, words):
    found = violations(adapt, fake_model(), lambda request: request.support.CopyFrom(support(X, labels)))
    assert words in found["support.labels"]


def test_labels_are_not_read_when_there_are_too_many(fake_model):
    request = pb.AdaptRequest(support=support(np.full((4, 1, 8, 8), np.nan), ["x" * 2000] * 21))
    found = violations(decode_adapt, request, fake_model(), LIMITS)
    assert found["support.labels"] == "has 21 labels, at most 20 are accepted"


def test_more_classes_than_the_model_takes_are_refused(fake_model):
    assert "at most 2" in violations(adapt, fake_model(max_ways=2))["support.labels"]


def test_a_model_whose_ways_are_fixed_takes_exactly_those(fake_model):
    assert "exactly 10" in violations(adapt, fake_model(ways_can_change="no"))["support.labels"]
    assert adapt(fake_model(ways_can_change="no", head_ways=3)).support.ways == 3


def test_targets_are_refused_by_a_classifier_and_labels_by_a_regressor(fake_model):
    targets = np.zeros((4, 1), np.float32)
    found = violations(adapt, fake_model(), lambda request: request.support.CopyFrom(regression_support(X, targets)))
    assert "support.labels" in found
    assert "support.targets" in violations(adapt, fake_model(task_kind="regression", target_size=1))


def test_regression_targets_become_float32(fake_model):
    request = pb.AdaptRequest(support=regression_support(X, np.arange(8.0).reshape(4, 2)))
    task = decode_adapt(request, fake_model(task_kind="regression", target_size=2, max_ways=0), LIMITS)
    assert task.support.y.dtype == np.float32
    assert task.support.y.tolist() == np.arange(8.0).reshape(4, 2).tolist()
    assert (task.classes, task.support.ways) == ((), 0)


def test_regression_targets_that_do_not_fit_are_refused(fake_model):
    model = fake_model(task_kind="regression", target_size=2)
    for targets, field in [
        (np.zeros((4, 1)), "support.targets.shape"),
        (np.zeros((3, 2)), "support.targets"),
        (np.full((4, 2), np.nan), "support.targets.data"),
    ]:
        request = pb.AdaptRequest(support=regression_support(X, targets))
        assert field in violations(decode_adapt, request, model, LIMITS)


def test_steps_up_to_the_limit_are_accepted_and_zero_is_a_choice(fake_model):
    assert [adapt(fake_model(), options=pb.AdaptOptions(steps=steps)).steps for steps in (0, 5)] == [0, 5]
    assert "at most 5" in violations(adapt, fake_model(), options=pb.AdaptOptions(steps=6))["options.steps"]
    no_steps = violations(adapt, fake_model(max_steps=0, default_steps=0), options=pb.AdaptOptions(steps=1))
    assert "no inner steps" in no_steps["options.steps"]


def test_everything_wrong_with_a_request_is_reported_at_once(fake_model):
    request = pb.AdaptPredictRequest(
        support=support(np.full((4, 1, 8, 8), np.nan), ["a"] * 4), options=pb.AdaptOptions(steps=99)
    )
    found = violations(decode_adapt_predict, request, fake_model(), LIMITS)
    assert set(found) == {"support.inputs.tensor.data", "support.labels", "options.steps", "query"}


@pytest.mark.parametrize("seconds", [0, -1, 601])
def test_a_life_too_long_or_not_positive_is_refused(seconds):
    request = pb.AdaptRequest(options=pb.AdaptOptions(time_to_live=Duration(seconds=seconds)))
    assert "options.time_to_live" in violations(decode_keep_options, request, LIMITS)


def test_an_adaptation_is_kept_as_long_as_its_request_says():
    request = pb.AdaptRequest(options=pb.AdaptOptions(time_to_live=Duration(seconds=2, nanos=500_000_000)))
    assert decode_keep_options(request, LIMITS).time_to_live == 2.5
    assert decode_keep_options(pb.AdaptRequest(), LIMITS).time_to_live == 60
    assert "request_id" in violations(decode_keep_options, pb.AdaptRequest(request_id="x" * 129), LIMITS)


def test_a_life_without_end_is_for_servers_that_set_no_limit():
    limits = replace(LIMITS, max_time_to_live=0)
    for seconds, possible in ((0, True), (10**9, True), (-1, False), (10**10, False)):
        request = pb.AdaptRequest(options=pb.AdaptOptions(time_to_live=Duration(seconds=seconds)))
        if possible:
            assert decode_keep_options(request, limits).time_to_live == seconds
        else:
            assert "options.time_to_live" in violations(decode_keep_options, request, limits)


def test_a_caller_may_forbid_that_examples_are_kept():
    request = pb.AdaptRequest(options=pb.AdaptOptions(forget_examples=True))
    assert decode_keep_options(request, LIMITS).forget_examples
    assert not decode_keep_options(pb.AdaptRequest(), LIMITS).forget_examples


def test_a_fingerprint_tells_requests_apart_by_content():
    def fingerprint(**fields):
        return decode_keep_options(pb.AdaptRequest(request_id="id", **fields), LIMITS).fingerprint

    assert fingerprint(support=support(X, LABELS)) == fingerprint(support=support(X, LABELS))
    assert fingerprint(support=support(X, LABELS)) != fingerprint(support=support(X, LABELS[::-1]))


@given(st.binary(max_size=300))
def test_no_request_whatever_makes_the_decoder_fail_otherwise(content):
    request = pb.AdaptPredictRequest()
    try:
        request.ParseFromString(content)
    except DecodeError:
        return
    with pytest.raises(InvalidRequestError):
        decode_adapt_predict(request, RecordingModel(describe()), LIMITS)


@given(
    shape=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
    data_type=st.integers(-1, 7),
    size=st.integers(0, 200),
    labels=st.lists(st.text(max_size=3), max_size=5),
)
def test_no_tensor_whatever_makes_the_decoder_fail_otherwise(shape, data_type, size, labels):
    message = tensor_pb2.Tensor(data_type=data_type, shape=shape, data=bytes(size))
    request = pb.AdaptRequest(support=pb.Support(inputs=tensor_pb2.Inputs(tensor=message)))
    request.support.labels.values.extend(labels)
    with pytest.raises(InvalidRequestError):
        decode_adapt(request, RecordingModel(describe()), LIMITS)


def test_priorities_are_read_and_unknown_ones_are_named():
    numbers = (pb.PRIORITY_UNSPECIFIED, pb.PRIORITY_BATCH, pb.PRIORITY_NORMAL, pb.PRIORITY_INTERACTIVE)
    assert [decode_priority(number) for number in numbers] == [Priority.NORMAL, *Priority]
    assert "is 4, and must be" in violations(decode_priority, pb.PRIORITY_INTERACTIVE + 1)["priority"]

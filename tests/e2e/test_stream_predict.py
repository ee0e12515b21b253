"""Many queries on one stream: what is answered, when, and what ends it."""

import json
import time
from itertools import chain, islice, repeat
from queue import SimpleQueue

import grpc
import numpy as np
import pytest
from examples import adapt_request, curve_support, lasting_request, pictures, predict_request
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpc import StatusCode
from running import Metrics, connect, wait_until
from wire import array, inputs, problem

from innerloop.v1 import adaptation_pb2 as pb
from innerloop.v1.model_pb2 import ListModelsRequest

pytestmark = pytest.mark.with_and_without_front_ends

UNDER_WAY = 32


class Stream:
    """One stream, asked and read step by step."""

    def __init__(self, client, **settings):
        self._requests = SimpleQueue()
        self.call = client.adaptations.StreamPredict(iter(self._requests.get, None), **settings)

    def ask(self, sequence, adaptation_id="", count=4, **fields):
        query = fields.pop("query", None) or inputs(pictures(count, seed=sequence))
        self._requests.put(
            pb.StreamPredictRequest(sequence=sequence, adaptation_id=adaptation_id, query=query, **fields)
        )

    def finish(self):
        self._requests.put(None)

    def answer(self):
        return next(self.call)

    def ends(self):
        """How the stream fails."""
        with pytest.raises(grpc.RpcError) as ended:
            next(self.call)
        return problem(ended.value)


@pytest.fixture(scope="module")
def server(start_server):
    """A server in whose queue all queries of a stream wait, until the device has time for them."""
    with start_server(max_batch_tasks=2 * UNDER_WAY) as server:
        yield server


@pytest.fixture
def stream(client):
    stream = Stream(client, timeout=60)
    yield stream
    stream.call.cancel()
    stream.finish()


def adapt(client, *arguments, **fields):
    return client.adaptations.Adapt(adapt_request(*arguments, **fields)).adaptation.id


@pytest.fixture
def adaptation_id(client):
    return adapt(client)


@pytest.fixture
def busy(client, adaptation_id):  # noqa: ARG001 - made before the device is busy
    """Occupies the device for a second or more."""
    client.models.ListModels(ListModelsRequest())
    running = client.adaptations.Adapt.future(lasting_request(4000))
    client.models.ListModels(ListModelsRequest())  # comes after the request before it
    yield
    running.result()


def waiting(metrics):
    return metrics("innerloop_queue_depth", model="prototypes", operation="predict")


def answered(metrics, status):
    return metrics("innerloop_requests_total", rpc="StreamPredict", model="prototypes", status=status)


def stands_still(count):
    """Wait until a number no longer changes."""

    def unchanged():
        seen = count()
        time.sleep(0.3)
        return count() == seen

    wait_until(unchanged)


def reason(response):
    assert response.WhichOneof("outcome") == "error"
    info = ErrorInfo()
    assert response.error.details[0].Unpack(info)
    return info.reason


def test_every_query_is_answered_once_as_predict_answers_it(client, stream, adaptation_id):
    count = 200
    stream.ask(0, adaptation_id, return_logits=True)
    for sequence in range(1, count):
        stream.ask(sequence, return_logits=True)
    stream.finish()
    answers = {response.sequence: response for response in stream.call}
    assert set(answers) == set(range(count))
    for sequence, response in answers.items():
        alone = client.adaptations.Predict(predict_request(adaptation_id, seed=sequence, return_logits=True))
        for name in ("probabilities", "logits"):
            theirs, ours = getattr(alone.predictions, name), getattr(response.predictions, name)
            np.testing.assert_allclose(array(ours), array(theirs), atol=1e-5)
        assert response.timings.predict.ToNanoseconds() > 0


def test_sequence_numbers_are_the_clients_own(stream, adaptation_id):
    for sequence in (7, 2**64 - 1, 7):
        stream.ask(sequence, adaptation_id, query=inputs(pictures(1)))
        assert stream.answer().sequence == sequence


def test_classes_come_once_for_each_time_that_the_adaptation_is_named(stream, adaptation_id):
    seen = []
    for name in (adaptation_id, "", "", adaptation_id, ""):
        stream.ask(1, name)
        seen.append(list(stream.answer().predictions.classes))
    classes = ["class 0", "class 1", "class 2"]
    assert seen == [classes, [], [], classes, []]


def test_classes_come_with_the_first_answer_that_is_no_error(stream, adaptation_id):
    stream.ask(1, adaptation_id, query=inputs(np.zeros((1, 2), np.uint8)))
    stream.ask(2)
    answers = {response.sequence: response for response in (stream.answer(), stream.answer())}
    assert reason(answers[1]) == "INVALID_REQUEST"
    assert len(answers[2].predictions.classes) == 3


def test_a_stream_may_turn_to_another_adaptation_of_any_model(client, stream, adaptation_id):
    other = adapt(client, "gradients", ways=5)
    curve = client.adaptations.Adapt(pb.AdaptRequest(model="regression", support=curve_support())).adaptation.id
    stream.ask(1, adaptation_id)
    stream.ask(2, other)
    stream.ask(3)
    stream.ask(4, curve, query=inputs(np.zeros((2, 1), np.float32)))
    stream.finish()
    answers = {response.sequence: response.predictions for response in stream.call}
    assert [list(answers[number].probabilities.shape) for number in (1, 2, 3)] == [[4, 3], [4, 5], [4, 5]]
    assert list(answers[4].values.shape) == [2, 1]


@pytest.mark.rarely("alone")
@pytest.mark.usefixtures("busy")
def test_a_query_that_can_be_refused_does_not_wait_for_those_before_it(stream, adaptation_id):
    stream.ask(1, adaptation_id)
    stream.ask(2, "nothing")
    assert stream.answer().sequence == 2
    assert stream.answer().sequence == 1


def test_a_query_that_fails_is_answered_with_its_error_and_the_stream_goes_on(client, stream, adaptation_id):
    stream.ask(1)
    first = stream.answer()
    assert (reason(first), first.sequence) == ("INVALID_REQUEST", 1)
    stream.ask(2, adaptation_id, query=inputs(np.zeros((1, 2, 2), np.uint8)))
    second = stream.answer()
    assert (reason(second), second.error.code) == ("INVALID_REQUEST", StatusCode.INVALID_ARGUMENT.value[0])
    violations = BadRequest()
    assert second.error.details[1].Unpack(violations)
    assert [violation.field for violation in violations.field_violations] == ["query.tensor.shape"]
    stream.ask(3)
    assert stream.answer().HasField("predictions")
    client.adaptations.DeleteAdaptation(pb.DeleteAdaptationRequest(adaptation_id=adaptation_id))
    stream.ask(4)
    gone = stream.answer()
    assert (reason(gone), gone.error.code) == ("ADAPTATION_NOT_FOUND", StatusCode.NOT_FOUND.value[0])
    assert gone.error.message.startswith("there is no such adaptation")
    stream.ask(5, adapt(client))
    assert stream.answer().HasField("predictions")


@pytest.mark.rarely("front ends")
def test_an_adaptation_that_gives_way_in_mid_stream_is_an_error_of_its_queries(start_server):
    with start_server(adaptation_bytes=1500) as server, connect(server) as client:
        stream = Stream(client)
        stream.ask(1, adapt(client))
        assert stream.answer().HasField("predictions")
        newer = [adapt(client, seed=seed) for seed in range(10)][-1]
        stream.ask(2)
        assert reason(stream.answer()) == "ADAPTATION_EVICTED"
        stream.ask(3, newer)
        assert stream.answer().HasField("predictions")
        stream.finish()


def test_an_unreadable_message_ends_the_stream_after_what_was_asked_before(client, adaptation_id):
    send = client.channel.stream_stream(
        "/innerloop.v1.AdaptationService/StreamPredict", response_deserializer=pb.StreamPredictResponse.FromString
    )
    good = pb.StreamPredictRequest(sequence=1, adaptation_id=adaptation_id, query=inputs(pictures(1)))
    call = send(iter([good.SerializeToString(), b"\xff\xff"]))
    assert next(call).sequence == 1
    with pytest.raises(grpc.RpcError) as ended:
        next(call)
    assert problem(ended.value).reason == "INVALID_REQUEST"


@pytest.mark.rarely("alone")
@pytest.mark.usefixtures("busy")
def test_the_deadline_of_the_stream_holds_for_its_queries(client, adaptation_id, metrics):
    before = answered(metrics, "DEADLINE_EXCEEDED")
    stream = Stream(client, timeout=0.5)
    for sequence in range(5):
        stream.ask(sequence, adaptation_id)
    assert stream.ends().code is StatusCode.DEADLINE_EXCEEDED
    wait_until(lambda: answered(metrics, "DEADLINE_EXCEEDED") == before + 5)
    assert waiting(metrics) == 0


@pytest.mark.rarely("alone")
@pytest.mark.usefixtures("busy")
def test_a_cancelled_stream_drops_what_waits(server, client, adaptation_id, metrics):
    computed = metrics("innerloop_batch_size_sum", model="prototypes", operation="predict")
    stream = Stream(client, metadata=(("innerloop-request-id", "cancelled"),))
    for sequence in range(5):
        stream.ask(sequence, adaptation_id)
    wait_until(lambda: waiting(metrics) == 5)
    stream.call.cancel()
    wait_until(lambda: waiting(metrics) == 0)
    wait_until(lambda: answered(metrics, "CANCELLED") == 5)
    client.adaptations.Predict(predict_request(adaptation_id))
    assert metrics("innerloop_batch_size_sum", model="prototypes", operation="predict") == computed + 1
    wait_until(lambda: '"cancelled"' in server.log)
    assert "exception" not in server.log


@pytest.mark.rarely("front ends")
def test_clients_that_hang_up_between_answers_leave_no_trace_but_one_line_each(server, adaptation_id):
    def lines():
        return [json.loads(line) for line in server.log.splitlines() if '"hung-up"' in line]

    count = 30
    for answers in range(count):
        with connect(server, options=[("grpc.use_local_subchannel_pool", 1)]) as other:
            stream = Stream(other, metadata=(("innerloop-request-id", "hung-up"),))
            for sequence in range(500):
                stream.ask(sequence, adaptation_id, count=1)
            for _ in range(1 + answers):
                stream.answer()
        stream.finish()
    wait_until(lambda: len(lines()) == count)
    # A fast server may have answered everything before it hears that nobody listens.
    statuses = {line["status"] for line in lines()}
    assert "CANCELLED" in statuses
    assert statuses <= {"CANCELLED", "OK"}
    assert "exception" not in server.log


@pytest.mark.rarely("alone")
@pytest.mark.usefixtures("busy")
def test_only_so_many_queries_of_one_stream_are_under_way(stream, adaptation_id, metrics):
    for sequence in range(10 * UNDER_WAY):
        stream.ask(sequence, adaptation_id)
    stream.finish()
    wait_until(lambda: waiting(metrics) == UNDER_WAY)
    time.sleep(0.2)
    assert waiting(metrics) == UNDER_WAY
    assert len(list(stream.call)) == 10 * UNDER_WAY


@pytest.mark.rarely("alone")
def test_a_client_that_reads_no_answers_can_not_go_on_asking(client, adaptation_id, metrics):
    most = 10_000
    sent = []
    request = pb.StreamPredictRequest(adaptation_id=adaptation_id, query=inputs(pictures(500)))
    before = answered(metrics, "OK")
    call = client.adaptations.StreamPredict(sent.append(None) or question for question in repeat(request, most))

    stands_still(lambda: len(sent))
    assert len(sent) < most
    assert answered(metrics, "OK") - before < len(sent)
    assert len(list(islice(call, 500))) == 500, "it goes on when the client reads"
    call.cancel()


@pytest.mark.rarely("alone")
def test_a_stopping_server_does_not_wait_for_clients_that_read_no_answers(start_server):
    with start_server() as server, connect(server) as client:
        request = pb.StreamPredictRequest(adaptation_id=adapt(client), query=inputs(pictures(500)))
        sent, metrics = [], Metrics(server.metrics_url)
        call = client.adaptations.StreamPredict(sent.append(None) or question for question in repeat(request, 10_000))
        wait_until(lambda: answered(metrics, "OK") >= 5)
        stands_still(lambda: len(sent))
        server.process.terminate()
        assert server.process.wait(10) == 0, "they are given up after two seconds, and the server after thirty"
        call.cancel()


@pytest.mark.rarely("alone")
def test_a_stopping_server_answers_what_it_has_read_and_says_why_the_stream_ends(start_server):
    with start_server() as server, connect(server) as client:
        adaptation_id = adapt(client)
        metrics = Metrics(server.metrics_url)
        idle, asking = Stream(client), Stream(client)
        idle.ask(0, adaptation_id)
        idle.answer()
        running = client.adaptations.Adapt.future(lasting_request(700))
        client.models.ListModels(ListModelsRequest())  # comes after the request before it
        for sequence in range(5):
            asking.ask(sequence, adaptation_id)
        wait_until(lambda: waiting(metrics) == 5)
        server.process.terminate()
        ended = idle.ends()
        assert (ended.code, ended.reason) == (StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
        assert ended.retry_after > 0
        assert running.result().adaptation.steps == 700
        assert {asking.answer().sequence for _ in range(5)} == set(range(5))
        assert asking.ends().reason == "SHUTTING_DOWN"
        assert server.process.wait(20) == 0
        for stream in (idle, asking):
            stream.finish()


def test_queries_count_as_requests_and_a_stream_logs_one_line(server, client, adaptation_id, metrics):
    def count(**labels):
        return metrics("innerloop_requests_total", rpc="StreamPredict", **labels)

    before = count(model="prototypes", status="OK"), count(model="", status="NOT_FOUND")
    stream = Stream(client, metadata=(("innerloop-request-id", "my-stream"),))
    for sequence, name in enumerate(chain([adaptation_id], repeat("", 9), ["nothing"])):
        stream.ask(sequence, name)
    stream.finish()
    assert len(list(stream.call)) == 11
    assert dict(stream.call.trailing_metadata())["innerloop-request-id"] == "my-stream"
    wait_until(lambda: '"my-stream"' in server.log)
    (line,) = [json.loads(line) for line in server.log.splitlines() if '"my-stream"' in line]
    assert (line["event"], line["queries"], line["status"]) == ("stream", 11, "OK")
    wait_until(lambda: count(model="", status="NOT_FOUND") == before[1] + 1)
    assert count(model="prototypes", status="OK") == before[0] + 10
    assert metrics("innerloop_request_duration_seconds_count", rpc="StreamPredict", model="prototypes") >= 10

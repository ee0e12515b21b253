"""A small Innerloop server on a real port whose answers a test can script; it learns nothing."""

import itertools
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from typing import Any, NamedTuple

import grpc
import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from innerloop.tensors import encode_tensor
from innerloop.v1 import adaptation_pb2 as pb
from innerloop.v1 import adaptation_pb2_grpc, model_pb2, model_pb2_grpc
from innerloop.v1.tensor_pb2 import DATA_TYPE_UINT8, Inputs

ANY_PORT = "127.0.0.1:0"
"""Of the address that real servers listen on: one on [::1] could have the port of a real one, and get its calls."""


class Received(NamedTuple):
    """One request as it came in."""

    method: str
    request: Any
    request_id: str
    at: float
    authorization: str | None


class Failure(NamedTuple):
    """An answer that is an error."""

    code: grpc.StatusCode
    message: str = "scripted"
    details: tuple[Message, ...] = ()


def reason(text: str) -> ErrorInfo:
    return ErrorInfo(reason=text, domain="innerloop")


def retry_after(seconds: float) -> RetryInfo:
    delay = Duration()
    delay.FromTimedelta(timedelta(seconds=seconds))
    return RetryInfo(retry_delay=delay)


def overloaded(seconds: float) -> Failure:
    return Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", (reason("OVERLOADED"), retry_after(seconds)))


def bad_request(field: str, description: str) -> Failure:
    violation = BadRequest.FieldViolation(field=field, description=description)
    return Failure(grpc.StatusCode.INVALID_ARGUMENT, "bad request", (BadRequest(field_violations=[violation]),))


def model(name: str, *shape: int) -> model_pb2.Model:
    return model_pb2.Model(
        name=name,
        version="v1",
        state=model_pb2.MODEL_STATE_READY,
        method="protonet",
        task_kind=model_pb2.TASK_KIND_CLASSIFICATION,
        input_shape=shape,
        input_data_type=DATA_TYPE_UINT8,
        limits=model_pb2.TaskLimits(trained_ways=5, trained_shots=1, max_ways=20),
        metrics=[model_pb2.Metric(name="accuracy", value=0.97, confidence_interval=0.01, protocol="inductive")],
    )


class ScriptedServer(adaptation_pb2_grpc.AdaptationServiceServicer, model_pb2_grpc.ModelServiceServicer):
    """Keeps adaptations, answers query i with class i (modulo ways), and does first what `script` says.

    Attributes:
        received: every request so far.
        models: what the model service knows.
        evicted: ids that were dropped.
        slow: seconds that every adaptation takes.
        slow_predict: seconds that every Predict takes.
        going: clear it, and requests that come in wait until it is set again.
        held_back: how many answers a stream holds back, to give the last one first.
        silent: whether streams go without any answer.
        downloads: messages of each download, at the end of which it waits for `going`; a failure ends it.
        expired: credentials that are not valid any more for queries of streams.
    """

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.models = {name: model(name, *shape) for name, shape in MODELS.items()}
        self.evicted: set[str] = set()
        self.slow = 0.0
        self.slow_predict = 0.0
        self.going = threading.Event()
        self.going.set()
        self.held_back = 0
        self.silent = False
        self.downloads: list[list[pb.DownloadAdaptationResponse | Failure]] = []
        self.expired: set[str] = set()
        self.address = ""
        self._kept: dict[str, pb.Adaptation] = {}
        self._made: dict[str, pb.Adaptation] = {}
        self._examples: dict[str, dict[int, str]] = {}
        self._next_ids: dict[str, int] = {}
        self._numbers = count()
        self._scripts: dict[str, deque[Failure | None]] = defaultdict(deque)
        self._lock = threading.Lock()

    def script(self, method: str, *failures: Failure | None) -> None:
        """Answer the next requests of `method` with these, or as usual where there is None."""
        self._scripts[method].extend(failures)

    def evict_all(self) -> None:
        """Drop every adaptation, as a server short of memory does."""
        with self._lock:
            self.evicted |= set(self._kept)
            self._kept.clear()
            self._made.clear()

    def restart(self) -> None:
        """Forget that there ever was an adaptation."""
        self._kept.clear()
        self.evicted.clear()

    @property
    def kept(self) -> set[str]:
        """Ids of the adaptations that are there."""
        return set(self._kept)

    def requests(self, method: str) -> list[Any]:
        """The requests of one method so far."""
        return [received.request for received in self.received if received.method == method]

    def Adapt(self, request: pb.AdaptRequest, context: Any) -> pb.AdaptResponse:  # noqa: N802
        self._begin("Adapt", request, context)
        return pb.AdaptResponse(adaptation=self._keep(request), timings=pb.Timings(adapt=Duration(nanos=2_000_000)))

    def Predict(self, request: pb.PredictRequest, context: Any) -> pb.PredictResponse:  # noqa: N802
        self._begin("Predict", request, context)
        time.sleep(self.slow_predict)
        adaptation = self._find(request.adaptation_id, context)
        return pb.PredictResponse(predictions=_answers(adaptation.classes, request.query, request.return_logits))

    def StreamPredict(self, requests: Any, context: Any) -> Iterator[pb.StreamPredictResponse]:  # noqa: N802
        self._begin("StreamPredict", None, context)
        credential = dict(context.invocation_metadata()).get("authorization", "")
        held: list[pb.StreamPredictResponse] = []
        named, classes_sent = "", False
        for request in itertools.chain(requests, [None]):
            if request is not None:
                self._begin("query", request, context)
                if request.adaptation_id:
                    named, classes_sent = request.adaptation_id, False
                if credential in self.expired:
                    unknown = _status(Failure(grpc.StatusCode.UNAUTHENTICATED))
                    held.append(pb.StreamPredictResponse(sequence=request.sequence, error=unknown))
                elif not self.silent:
                    held.append(self._stream_answer(request, named))
            if request is None or request.adaptation_id or len(held) > self.held_back:
                for answer in reversed(held):
                    if answer.HasField("predictions"):
                        if classes_sent:
                            answer.predictions.ClearField("classes")
                        classes_sent = True
                    yield answer
                held = []
        if self.silent:
            left = threading.Event()
            if context.add_callback(left.set):
                left.wait()

    def _stream_answer(self, request: pb.StreamPredictRequest, named: str) -> pb.StreamPredictResponse:
        found = self._kept.get(named)
        with self._lock:
            failure = self._scripts["answer"].popleft() if self._scripts["answer"] else None
        if found is None:
            failure = self._gone(named)
        if failure:
            return pb.StreamPredictResponse(sequence=request.sequence, error=_status(failure))
        assert found is not None
        predictions = _answers(found.classes, request.query, request.return_logits)
        return pb.StreamPredictResponse(sequence=request.sequence, predictions=predictions)

    def AdaptPredict(self, request: pb.AdaptPredictRequest, context: Any) -> pb.AdaptPredictResponse:  # noqa: N802
        self._begin("AdaptPredict", request, context)
        made = self._keep(request) if request.keep else None
        classes = (made or self._adaptation(request)).classes
        return pb.AdaptPredictResponse(
            adaptation=made, predictions=_answers(classes, request.query, request.return_logits)
        )

    def UpdateAdaptation(self, request: pb.UpdateAdaptationRequest, context: Any) -> pb.UpdateAdaptationResponse:  # noqa: N802
        self._begin("UpdateAdaptation", request, context)
        adaptation, examples = self._find(request.adaptation_id, context), self._examples[request.adaptation_id]
        renamed = {each.label: each.new_label for each in request.rename_classes}
        relabelled = dict(zip(request.relabel.example_ids, request.relabel.labels.values, strict=True))
        for each, label in list(examples.items()):
            examples[each] = relabelled.get(each, renamed.get(label, label))
            if each in request.remove_examples or label in request.remove_classes:
                del examples[each]
        first = self._next_ids[adaptation.id]
        added = dict(enumerate(request.add.labels.values, first))
        self._next_ids[adaptation.id] += len(added)
        examples.update(added)
        adaptation.revision = (adaptation.revision or 1) + 1
        adaptation.support_size = len(examples)
        adaptation.classes[:] = dict.fromkeys(examples.values())
        return pb.UpdateAdaptationResponse(adaptation=adaptation, example_ids=list(added))

    def ListExamples(self, request: pb.ListExamplesRequest, context: Any) -> pb.ListExamplesResponse:  # noqa: N802
        self._begin("ListExamples", request, context)
        examples = self._examples[self._find(request.adaptation_id, context).id]
        return pb.ListExamplesResponse(example_ids=examples, labels=pb.Labels(values=examples.values()))

    def DownloadAdaptation(  # noqa: N802
        self, request: pb.DownloadAdaptationRequest, context: Any
    ) -> Iterator[pb.DownloadAdaptationResponse]:
        self._begin("DownloadAdaptation", request, context)
        self._find(request.adaptation_id, context)
        for message in self.downloads.pop(0) if self.downloads else ():
            if isinstance(message, Failure):
                _abort(context, message)
            yield message
        self.going.wait()

    def GetAdaptation(self, request: pb.GetAdaptationRequest, context: Any) -> pb.GetAdaptationResponse:  # noqa: N802
        self._begin("GetAdaptation", request, context)
        return pb.GetAdaptationResponse(adaptation=self._find(request.adaptation_id, context))

    def ListAdaptations(self, request: pb.ListAdaptationsRequest, context: Any) -> pb.ListAdaptationsResponse:  # noqa: N802
        self._begin("ListAdaptations", request, context)
        own = [kept for kept in self._kept.values() if request.model in ("", kept.model)]
        start = int(request.page_token or 0)
        rest = start + 2 < len(own)
        return pb.ListAdaptationsResponse(
            adaptations=own[start : start + 2], next_page_token=str(start + 2) if rest else ""
        )

    def DeleteAdaptation(self, request: pb.DeleteAdaptationRequest, context: Any) -> pb.DeleteAdaptationResponse:  # noqa: N802
        self._begin("DeleteAdaptation", request, context)
        del self._kept[self._find(request.adaptation_id, context).id]
        return pb.DeleteAdaptationResponse()

    def ListModels(self, request: model_pb2.ListModelsRequest, context: Any) -> model_pb2.ListModelsResponse:  # noqa: N802
        self._begin("ListModels", request, context)
        return model_pb2.ListModelsResponse(models=self.models.values())

    def GetModel(self, request: model_pb2.GetModelRequest, context: Any) -> model_pb2.GetModelResponse:  # noqa: N802
        self._begin("GetModel", request, context)
        if request.model not in self.models:
            _abort(context, Failure(grpc.StatusCode.NOT_FOUND, "no such model", (reason("MODEL_NOT_FOUND"),)))
        return model_pb2.GetModelResponse(model=self.models[request.model])

    def LoadModel(self, request: model_pb2.LoadModelRequest, context: Any) -> model_pb2.LoadModelResponse:  # noqa: N802
        self._begin("LoadModel", request, context)
        self.models[request.model] = model(request.model, 1, 28, 28)
        return model_pb2.LoadModelResponse(model=self.models[request.model])

    def UnloadModel(self, request: model_pb2.UnloadModelRequest, context: Any) -> model_pb2.UnloadModelResponse:  # noqa: N802
        self._begin("UnloadModel", request, context)
        del self.models[request.model]
        return model_pb2.UnloadModelResponse()

    def _begin(self, method: str, request: Any, context: Any) -> None:
        metadata = dict(context.invocation_metadata())
        request_id = metadata.get("innerloop-request-id", "")
        context.set_trailing_metadata((("innerloop-request-id", request_id),))
        with self._lock:
            self.received.append(Received(method, request, request_id, time.monotonic(), metadata.get("authorization")))
            failure = self._scripts[method].popleft() if self._scripts[method] else None
        self.going.wait()
        if failure:
            _abort(context, failure, request_id)

    def _keep(self, request: Any) -> pb.Adaptation:
        time.sleep(self.slow)
        with self._lock:
            made = self._made.setdefault(request.request_id, self._adaptation(request))
            self._kept[made.id] = made
            self._examples[made.id] = dict(enumerate(request.support.labels.values))
            self._next_ids[made.id] = made.support_size
        return made

    def _adaptation(self, request: Any) -> pb.Adaptation:
        return pb.Adaptation(
            id=f"adaptation-{next(self._numbers)}",
            model=request.model,
            model_version="v1",
            classes=dict.fromkeys(request.support.labels.values),
            support_size=_count(request.support.inputs),
            steps=request.options.steps,
            support_losses=[1.5, 0.5],
            example_weights=[1.25, 0.75],
            size_bytes=1024,
        )

    def _find(self, adaptation_id: str, context: Any) -> pb.Adaptation:
        with self._lock:
            found = self._kept.get(adaptation_id)
        if found is None:
            _abort(context, self._gone(adaptation_id))
        assert found is not None
        return found

    def _gone(self, adaptation_id: str) -> Failure:
        why = "ADAPTATION_EVICTED" if adaptation_id in self.evicted else "ADAPTATION_NOT_FOUND"
        return Failure(grpc.StatusCode.NOT_FOUND, "no such adaptation", (reason(why),))


MODELS = {"grey": (1, 28, 28), "colour": (3, 32, 32), "waves": (1,), "vectors": (4,)}


@contextmanager
def running(
    credentials: grpc.ServerCredentials | None = None, options: list[tuple[str, int]] | None = None
) -> Iterator[ScriptedServer]:
    """A scripted server on a free port."""
    scripted = ScriptedServer()
    server = grpc.server(ThreadPoolExecutor(16), options=options)
    adaptation_pb2_grpc.add_AdaptationServiceServicer_to_server(scripted, server)
    model_pb2_grpc.add_ModelServiceServicer_to_server(scripted, server)
    port = server.add_secure_port(ANY_PORT, credentials) if credentials else server.add_insecure_port(ANY_PORT)
    scripted.address = f"localhost:{port}"
    server.start()
    try:
        yield scripted
    finally:
        server.stop(None).wait()


def _answers(classes: Any, query: Inputs, return_logits: bool) -> pb.Predictions:
    count = _count(query)
    if not classes:
        return pb.Predictions(values=encode_tensor(np.arange(count * 2, dtype=np.float32).reshape(count, 2)[:, :1]))
    probabilities = np.full((count, len(classes)), 0.4 / (len(classes) - 1), np.float32)
    probabilities[np.arange(count), np.arange(count) % len(classes)] = 0.6
    logits = encode_tensor(np.log(probabilities)) if return_logits else None
    return pb.Predictions(classes=classes, probabilities=encode_tensor(probabilities), logits=logits)


def _count(inputs: Inputs) -> int:
    form = inputs.WhichOneof("value")
    if form == "tensor":
        return inputs.tensor.shape[0]
    sent = getattr(inputs, form)
    return len(sent.files if form in ("images", "audio_files") else sent.values)


def _status(failure: Failure) -> Status:
    status = Status(code=failure.code.value[0], message=failure.message)
    for detail in failure.details:
        status.details.add().Pack(detail)
    return status


def _abort(context: Any, failure: Failure, request_id: str = "") -> None:
    answer = rpc_status.to_status(_status(failure))
    if request_id:
        answer = answer._replace(trailing_metadata=(*answer.trailing_metadata, ("innerloop-request-id", request_id)))
    context.abort_with_status(answer)

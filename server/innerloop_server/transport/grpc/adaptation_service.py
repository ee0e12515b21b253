"""AdaptationService: decodes, asks `Serving`, encodes."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import partial
from time import perf_counter
from weakref import WeakValueDictionary

from innerloop.v1 import adaptation_pb2 as pb
from innerloop_server.domain.answers import Answers
from innerloop_server.domain.callers import Scope
from innerloop_server.domain.errors import FieldViolation, InvalidRequestError, ScopeMissingError
from innerloop_server.domain.tasks import PredictTask
from innerloop_server.domain.timings import Timings
from innerloop_server.observability.call_metrics import CallMetrics
from innerloop_server.serving.confidence import sure_answers, unknown_queries
from innerloop_server.serving.interface import Serving
from innerloop_server.transport.codec.detached import Received
from innerloop_server.transport.codec.inputs import is_heavy
from innerloop_server.transport.codec.requests import (
    RequestLimits,
    decode_adapt,
    decode_adapt_predict,
    decode_coverage,
    decode_diagnose,
    decode_keep_options,
    decode_priority,
    decode_query,
)
from innerloop_server.transport.codec.responses import (
    encode_adaptation,
    encode_answers,
    encode_diagnosis,
    encode_examples,
    encode_timings,
)
from innerloop_server.transport.codec.updates import decode_update
from innerloop_server.transport.grpc.byte_budget import ByteBudget
from innerloop_server.transport.grpc.calls import Call, Calls
from innerloop_server.transport.grpc.decoders import Decoders
from innerloop_server.transport.grpc.downloads import Downloads, send_files
from innerloop_server.transport.grpc.identity import Context
from innerloop_server.transport.grpc.streams import CONNECTION_BYTES, PredictStream

PAGE_SIZE, LARGEST_PAGE = 100, 1000
TOKEN_BYTES = 8


class AdaptationServicer:
    """Adapts and predicts over gRPC."""

    def __init__(self, serving: Serving, calls: Calls, limits: RequestLimits, metrics: CallMetrics) -> None:
        self._serving = serving
        self._calls = calls
        self._limits = limits
        self._metrics = metrics
        self._decoders = Decoders()
        self._downloads = Downloads()
        self._connections: WeakValueDictionary[str, ByteBudget] = WeakValueDictionary()

    async def Adapt(self, request: Received[pb.AdaptRequest], context: Context) -> pb.AdaptResponse:  # noqa: N802, D102
        return await self._calls.run("Adapt", self._adapt, request, context)

    async def Predict(self, request: Received[pb.PredictRequest], context: Context) -> pb.PredictResponse:  # noqa: N802, D102
        return await self._calls.run("Predict", self._predict, request, context)

    async def StreamPredict(self, requests: object, context: Context) -> None:  # noqa: N802, D102
        del requests  # `context` reads them, one at a time
        await self._calls.run_stream("StreamPredict", self._stream_predict, context)

    async def AdaptPredict(  # noqa: N802, D102
        self, request: Received[pb.AdaptPredictRequest], context: Context
    ) -> pb.AdaptPredictResponse:
        return await self._calls.run("AdaptPredict", self._adapt_predict, request, context)

    async def UpdateAdaptation(  # noqa: N802, D102
        self, request: Received[pb.UpdateAdaptationRequest], context: Context
    ) -> pb.UpdateAdaptationResponse:
        return await self._calls.run("UpdateAdaptation", self._update, request, context)

    async def ListExamples(  # noqa: N802, D102
        self, request: pb.ListExamplesRequest, context: Context
    ) -> pb.ListExamplesResponse:
        return await self._calls.run("ListExamples", self._list_examples, request, context)

    async def DownloadAdaptation(  # noqa: N802, D102
        self, request: pb.DownloadAdaptationRequest, context: Context
    ) -> None:
        await self._calls.run("DownloadAdaptation", partial(self._download, context), request, context)

    async def GetAdaptation(  # noqa: N802, D102
        self, request: pb.GetAdaptationRequest, context: Context
    ) -> pb.GetAdaptationResponse:
        return await self._calls.run("GetAdaptation", self._get, request, context)

    async def ListAdaptations(  # noqa: N802, D102
        self, request: pb.ListAdaptationsRequest, context: Context
    ) -> pb.ListAdaptationsResponse:
        return await self._calls.run("ListAdaptations", self._list, request, context)

    async def DeleteAdaptation(  # noqa: N802, D102
        self, request: pb.DeleteAdaptationRequest, context: Context
    ) -> pb.DeleteAdaptationResponse:
        return await self._calls.run("DeleteAdaptation", self._delete, request, context)

    async def _adapt(self, received: Received[pb.AdaptRequest], call: Call) -> pb.AdaptResponse:
        clock = _CodecClock()
        request, detached = received.message, received.detached
        caller = call.caller.with_priority(decode_priority(request.priority))
        model = await self._serving.model(caller, request.model)
        call.model, call.version = model.name, model.description.version
        task, keep = await self._decoders.run(
            lambda: (
                decode_adapt(request, model, self._limits, detached),
                decode_keep_options(request, self._limits, detached),
            ),
            heavy=is_heavy(request.support.inputs, "support.inputs", detached),
            account=caller.account,
        )
        diagnose = decode_diagnose(request, task)
        clock.pause()
        result = await self._serving.adapt(caller, task, keep, call.deadline, diagnose=diagnose)
        clock.go_on()
        response = pb.AdaptResponse(adaptation=encode_adaptation(result.adaptation))
        if result.diagnosis is not None:
            self._metrics.diagnosed(call.model, result.diagnosis.judged, result.diagnosis.doubtful)
            response.diagnosis.CopyFrom(encode_diagnosis(result.diagnosis))
        response.timings.CopyFrom(self._timings(result.timings, clock, call))
        return response

    async def _predict(self, received: Received[pb.PredictRequest], call: Call) -> pb.PredictResponse:
        return await self._ask(received.message.adaptation_id, received, call)

    async def _stream_predict(self, context: Context, call: Call) -> None:
        connection = self._connections.setdefault(context.peer(), ByteBudget(CONNECTION_BYTES))
        await PredictStream(self._ask, self._calls, call, context, connection).run()

    async def _ask(
        self,
        adaptation_id: str,
        received: Received[pb.PredictRequest] | Received[pb.StreamPredictRequest],
        call: Call,
    ) -> pb.PredictResponse:
        clock = _CodecClock()
        request, detached = received.message, received.detached
        caller = call.caller.with_priority(decode_priority(request.priority))
        model = await self._serving.model_of(caller, adaptation_id)
        call.model, call.version = model.name, model.description.version
        coverage = decode_coverage(request, model)
        query = await self._decoders.run(
            lambda: decode_query(request.query, model, self._limits, detached),
            heavy=is_heavy(request.query, "query", detached),
            account=caller.account,
        )
        clock.pause()
        task = PredictTask(model, adaptation_id, query)
        result = await self._serving.predict(caller, task, call.deadline)
        clock.go_on()
        answers = self._sure(result.answers, coverage, call)
        predictions = encode_answers(answers, result.classes, logits=request.return_logits)
        return pb.PredictResponse(predictions=predictions, timings=self._timings(result.timings, clock, call))

    async def _adapt_predict(self, received: Received[pb.AdaptPredictRequest], call: Call) -> pb.AdaptPredictResponse:
        clock = _CodecClock()
        request, detached = received.message, received.detached
        caller = call.caller.with_priority(decode_priority(request.priority))
        model = await self._serving.model(caller, request.model)
        call.model, call.version = model.name, model.description.version
        coverage = decode_coverage(request, model)
        (task, query), keep = await self._decoders.run(
            lambda: (
                decode_adapt_predict(request, model, self._limits, detached),
                decode_keep_options(request, self._limits, detached),
            ),
            heavy=is_heavy(request.support.inputs, "support.inputs", detached)
            or is_heavy(request.query, "query", detached),
            account=caller.account,
        )
        clock.pause()
        result = await self._serving.adapt_predict(caller, task, query, keep if request.keep else None, call.deadline)
        clock.go_on()
        answers = self._sure(result.answers, coverage, call)
        response = pb.AdaptPredictResponse(
            predictions=encode_answers(answers, task.classes, logits=request.return_logits)
        )
        if result.adaptation is not None:
            response.adaptation.CopyFrom(encode_adaptation(result.adaptation))
        response.timings.CopyFrom(self._timings(result.timings, clock, call))
        return response

    async def _update(self, received: Received[pb.UpdateAdaptationRequest], call: Call) -> pb.UpdateAdaptationResponse:
        clock = _CodecClock()
        request, detached = received.message, received.detached
        caller = call.caller.with_priority(decode_priority(request.priority))
        model = await self._serving.model_of(caller, request.adaptation_id)
        call.model, call.version = model.name, model.description.version
        task = await self._decoders.run(
            lambda: decode_update(request, model, self._limits, detached),
            heavy=is_heavy(request.add.inputs, "add.inputs", detached)
            or is_heavy(request.support.inputs, "support.inputs", detached),
            account=caller.account,
        )
        clock.pause()
        result = await self._serving.update(caller, task, call.deadline)
        clock.go_on()
        encoded = encode_adaptation(result.adaptation)
        return pb.UpdateAdaptationResponse(
            adaptation=encoded, timings=self._timings(result.timings, clock, call), example_ids=result.example_ids
        )

    async def _list_examples(self, request: pb.ListExamplesRequest, call: Call) -> pb.ListExamplesResponse:
        caller = call.caller.with_priority(decode_priority(request.priority))
        if request.diagnose and Scope.ADAPT not in caller.scopes:
            raise ScopeMissingError(Scope.ADAPT.value)
        listed = await self._serving.examples(caller, request.adaptation_id, call.deadline, diagnose=request.diagnose)
        call.model = listed.model
        if listed.diagnosis is not None:
            self._metrics.diagnosed(call.model, listed.diagnosis.judged, listed.diagnosis.doubtful)
        return encode_examples(listed)

    async def _download(self, context: Context, request: pb.DownloadAdaptationRequest, call: Call) -> None:
        with self._downloads.one_more(call.caller.account):
            adaptation = await self._serving.download(call.caller, request.adaptation_id, call.deadline)
            call.model = adaptation.model
            await send_files(adaptation, context)

    async def _get(self, request: pb.GetAdaptationRequest, call: Call) -> pb.GetAdaptationResponse:
        adaptation = await self._serving.look(call.caller, request.adaptation_id)
        call.model = adaptation.model
        return pb.GetAdaptationResponse(adaptation=encode_adaptation(adaptation))

    async def _list(self, request: pb.ListAdaptationsRequest, call: Call) -> pb.ListAdaptationsResponse:
        if request.page_size < 0:
            raise InvalidRequestError([FieldViolation("page_size", "is negative")])
        size = min(request.page_size or PAGE_SIZE, LARGEST_PAGE)
        before = _read_token(request.page_token)
        found = await self._serving.adaptations(call.caller, request.model, before, size + 1)
        page = found[:size]
        return pb.ListAdaptationsResponse(
            adaptations=map(encode_adaptation, page),
            next_page_token=_token(page[-1].created_ns) if len(found) > size else "",
        )

    async def _delete(self, request: pb.DeleteAdaptationRequest, call: Call) -> pb.DeleteAdaptationResponse:
        adaptation = await self._serving.delete(call.caller, request.adaptation_id)
        call.model = adaptation.model
        return pb.DeleteAdaptationResponse()

    def _sure(self, answers: Answers, coverage: float | None, call: Call) -> Answers:
        """Answers that say how sure they are, where the model is calibrated."""
        sure = sure_answers(answers, coverage)
        if sure.known is not None:
            self._metrics.judged(call.model, len(sure.known), unknown_queries(sure))
        if sure.label_sets is not None:
            self._metrics.label_sets(call.model, sure.label_sets.sum(1).tolist())
        return sure

    def _timings(self, timings: Timings, clock: "_CodecClock", call: Call) -> pb.Timings:
        encode_seconds = clock.stop()
        self._metrics.phase("encode", call.model, encode_seconds)
        return encode_timings(timings, encode_seconds)


class _CodecClock:
    """Time spent decoding and encoding; runs from the start."""

    __slots__ = ("_seconds", "_since")

    def __init__(self) -> None:
        self._seconds = 0.0
        self._since = perf_counter()

    def pause(self) -> None:
        self._seconds += perf_counter() - self._since

    def go_on(self) -> None:
        self._since = perf_counter()

    def stop(self) -> float:
        self.pause()
        return self._seconds


def _token(created_ns: int) -> str:
    return urlsafe_b64encode(created_ns.to_bytes(TOKEN_BYTES)).decode()


def _read_token(token: str) -> int | None:
    if not token:
        return None
    try:
        content = urlsafe_b64decode(token)
    except ValueError:
        content = b""
    if len(content) != TOKEN_BYTES or content[0] >> 7:  # times have 63 bits
        raise InvalidRequestError([FieldViolation("page_token", "is not one that this server gave out")])
    return int.from_bytes(content)

"""StreamPredict: many queries on one stream, each answered when it is ready."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import grpc
from google.protobuf.message import DecodeError

from innerloop.v1 import adaptation_pb2 as pb
from innerloop_server.domain.errors import ClassesChangedError, FieldViolation, InvalidRequestError, ShuttingDownError
from innerloop_server.transport.codec.detached import Received
from innerloop_server.transport.grpc.byte_budget import ByteBudget
from innerloop_server.transport.grpc.calls import Call, Calls
from innerloop_server.transport.grpc.identity import Context
from innerloop_server.transport.grpc.registration import not_a
from innerloop_server.transport.grpc.status import Failure

UNDER_WAY = 32
"""Most requests of one stream that are read and not answered yet; others wait in HTTP/2's buffers and at the client."""

STREAM_BYTES, CONNECTION_BYTES = 16 * 2**20, 64 * 2**20
"""Bytes of requests that are not answered yet and of answers that are not sent yet, of one stream and of all streams of
one connection. Beyond them nothing more is read of a stream."""

UNREAD_SECONDS = 2.0
"""When the server stops: seconds in which a client must take an answer. Otherwise its stream is given up."""

Ask = Callable[[str, Received[pb.StreamPredictRequest], Call], Awaitable[pb.PredictResponse]]
"""Has the adaptation of an id answer a query."""


@dataclass(slots=True)
class Naming:
    """The adaptation that a stream's requests are about until one of them names another.

    Attributes:
        adaptation_id: what it named.
        classes: those that an answer has carried; None while none has.
    """

    adaptation_id: str
    classes: tuple[str, ...] | None = None

    def check(self, response: pb.PredictResponse) -> pb.PredictResponse:
        """The same response, if its classes are those that the client was told, or is about to be.

        Raises:
            ClassesChangedError: they are not.
        """
        classes = tuple(response.predictions.classes)
        if self.classes not in (None, classes):
            raise ClassesChangedError
        return response


class PredictStream:
    """One stream.

    Args:
        ask: answers a query.
        calls: counts the queries, and says when the server stops.
        call: the RPC.
        context: of the RPC.
        connection: bounds the bytes of all streams of its connection.
    """

    def __init__(self, ask: Ask, calls: Calls, call: Call, context: Context, connection: ByteBudget) -> None:
        self._ask = ask
        self._calls = calls
        self._call = call
        self._context = context
        self._places = asyncio.Semaphore(UNDER_WAY)
        self._bytes = ByteBudget(STREAM_BYTES, connection)
        self._held = 0  # bytes that the connection must get back when the stream ends
        self._answering: set[asyncio.Task[None]] = set()
        self._written = 0  # answers
        self._writing = asyncio.Lock()  # gRPC takes one message at a time
        self._abandoned = False

    async def run(self) -> None:
        """Answer until the client has asked its last query; cancelling drops what is not answered yet.

        Raises:
            ShuttingDownError: the server stops; what was read is answered, if the client takes the answers.
            InvalidRequestError: a message can't be read; what was read before is answered.
        """
        try:
            async with asyncio.TaskGroup() as queries:
                reading = asyncio.create_task(self._read(queries))
                try:
                    with self._calls.on_close(reading.cancel):
                        await asyncio.wait([reading])
                finally:
                    reading.cancel()
                if reading.cancelled():
                    queries.create_task(self._give_up_unread())
        finally:
            self._hold(-self._held)
        if self._abandoned:
            raise asyncio.CancelledError
        if reading.cancelled():
            raise ShuttingDownError
        reading.result()

    async def _read(self, queries: asyncio.TaskGroup) -> None:
        naming = Naming("")
        while True:
            await self._places.acquire()
            await self._bytes.wait_for_room()
            try:
                received = await self._context.read()
            except DecodeError as error:
                raise not_a("StreamPredictRequest") from error
            if received is grpc.aio.EOF:
                return
            if received.message.adaptation_id:
                naming = Naming(received.message.adaptation_id)
            self._hold(received.size_bytes)
            answering = queries.create_task(self._answer(received, naming))
            self._answering.add(answering)
            answering.add_done_callback(self._answering.discard)

    async def _answer(self, received: Received[pb.StreamPredictRequest], naming: Naming) -> None:
        async def ask(received: Received[pb.StreamPredictRequest], call: Call) -> pb.PredictResponse:
            if not naming.adaptation_id:
                raise InvalidRequestError([FieldViolation("adaptation_id", "is missing in the stream's first request")])
            return naming.check(await self._ask(naming.adaptation_id, received, call))

        sequence, size = received.message.sequence, received.size_bytes
        outcome = await self._calls.answer("StreamPredict", ask, received, self._call, self._context)
        del received  # it is freed now, and not when the client takes the answer
        response = _encode(sequence, outcome, naming)
        self._hold(response.ByteSize() - size)
        async with self._writing:
            await self._write(response)
        self._written += 1
        self._hold(-response.ByteSize())
        self._places.release()

    async def _give_up_unread(self) -> None:
        """Cancel what is not answered yet as soon as the client takes no answers."""
        while self._answering:
            written = self._written
            await asyncio.wait(self._answering, timeout=UNREAD_SECONDS)
            if self._written == written and self._writing.locked():
                self._abandoned = True  # nor would it take a status
                for answering in self._answering:
                    answering.cancel()

    def _hold(self, size: int) -> None:
        """Count bytes of messages under way, or fewer."""
        self._held += size
        self._bytes.count(size)

    async def _write(self, response: pb.StreamPredictResponse) -> None:
        try:
            await self._context.write(response)
        except grpc.aio.BaseError:
            # The client has left; writing may notice that before gRPC cancels the call.
            self._abandoned = True


def _encode(sequence: int, outcome: pb.PredictResponse | Failure, naming: Naming) -> pb.StreamPredictResponse:
    response = pb.StreamPredictResponse(sequence=sequence)
    if isinstance(outcome, Failure):
        response.error.ParseFromString(outcome.details)
        return response
    response.predictions.CopyFrom(outcome.predictions)
    response.timings.CopyFrom(outcome.timings)
    if naming.classes is not None:
        response.predictions.ClearField("classes")
    else:
        naming.classes = tuple(outcome.predictions.classes)
    return response

"""Asks many queries on a stream, for either kind of client."""

import asyncio
import threading
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterable, Iterator
from typing import Any

import grpc
import grpc.aio

from innerloop.adaptation_core import AdaptationCore
from innerloop.async_connection import AsyncConnection
from innerloop.connection import Connection
from innerloop.errors import InvalidArgumentError
from innerloop.inputs import Inputs
from innerloop.one_stream import OneStream
from innerloop.predictions import Predictions
from innerloop.stream_core import LOOK_AHEAD, NoMoreQueriesError, StreamCore
from innerloop.v1.adaptation_pb2 import StreamPredictRequest, StreamPredictResponse
from innerloop.wanted import Wanted


class PredictStream(StreamCore):
    """A stream of a synchronous client; arguments as those of `Adaptation.predict_stream`.

    gRPC sends what it finds in an iterator, from a thread of its own: there the caller's queries are read.
    """

    def __init__(
        self,
        connection: Connection,
        adaptation: AdaptationCore,
        queries: Iterable[Inputs],
        rate: int | None,
        wanted: Wanted,
        timeout: float | None,
    ) -> None:
        super().__init__(connection, adaptation, rate, wanted, timeout)
        self._connection = connection
        self._queries = _iterator(queries)
        self._places = threading.Semaphore(LOOK_AHEAD)
        self._reading = threading.Lock()
        self._over = threading.Event()

    def answers(self) -> Iterator[Predictions]:
        """The answer to each query."""
        self._open_stream()
        threading.Thread(target=self._watch, daemon=True).start()
        try:
            while (answer := self._connection.run(self._next_answer())) is not None:
                yield answer
            if self._failure is not None:
                raise self._failure
        finally:
            self._over.set()
            self._places.release()
            self._call.cancel()

    def _open_stream(self) -> None:
        stream = self._begin_stream()
        self._call, self._link = self._connection.open_stream(self._requests(stream), stream.request_id)

    def _requests(self, stream: OneStream) -> Iterator[StreamPredictRequest]:
        """Messages of one stream: queries that the stream before it left without an answer, then further ones."""
        place = 0
        while (asked := self._connection.run(self._query(place))) is not None and stream is self._stream:
            place = asked.sequence + 1
            yield stream.request(asked)

    def _response(self) -> StreamPredictResponse | None:
        response: StreamPredictResponse | None = next(self._call, None)
        return response

    def _next_query(self) -> Inputs:
        if self._over.is_set():
            raise NoMoreQueriesError
        try:
            return next(self._queries)
        except StopIteration:
            raise NoMoreQueriesError from None

    def _take_place(self) -> None:
        self._places.acquire()

    def _free_place(self) -> None:
        self._places.release()

    def _begin_reading(self) -> None:
        self._reading.acquire()

    def _end_reading(self) -> None:
        self._reading.release()

    def _watch(self) -> None:
        """Give up on a server that does not answer: gRPC has no way to wait for a response for a limited time."""
        while not self._over.wait(self._patience.left()):
            if self._patience.ended:
                self._call.cancel()
                return


class AsyncPredictStream(StreamCore):
    """A stream of an asynchronous client, which sends in a task; arguments as `AsyncAdaptation.predict_stream`."""

    def __init__(
        self,
        connection: AsyncConnection,
        adaptation: AdaptationCore,
        queries: Iterable[Inputs] | AsyncIterable[Inputs],
        rate: int | None,
        wanted: Wanted,
        timeout: float | None,
    ) -> None:
        super().__init__(connection, adaptation, rate, wanted, timeout)
        self._connection = connection
        self._queries = _async_iterator(queries)
        self._places = asyncio.Semaphore(LOOK_AHEAD)
        self._reading = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def answers(self) -> AsyncIterator[Predictions]:
        """The answer to each query."""
        await self._open_stream()
        self._start(self._watch())
        try:
            while (answer := await self._connection.run(self._next_answer())) is not None:
                yield answer
            if self._failure is not None:
                raise self._failure
        finally:
            for task in self._tasks:
                task.cancel()
            self._call.cancel()

    async def _open_stream(self) -> None:
        stream = self._begin_stream()
        self._call, self._link = await self._connection.open_stream(stream.request_id)
        self._start(self._send(stream, self._call))

    async def _send(self, stream: OneStream, call: Any) -> None:
        """Send on one stream: queries of the one before it that have no answer, then further ones."""
        place = 0
        try:
            while (asked := await self._connection.run(self._query(place))) is not None and stream is self._stream:
                place = asked.sequence + 1
                await call.write(stream.request(asked))
            await call.done_writing()
        except (grpc.RpcError, asyncio.InvalidStateError):
            pass  # the stream broke, which its reader finds out too

    async def _response(self) -> StreamPredictResponse | None:
        response = await self._call.read()
        return None if response is grpc.aio.EOF else response

    async def _next_query(self) -> Inputs:
        try:
            return await anext(self._queries)
        except StopAsyncIteration:
            raise NoMoreQueriesError from None

    async def _take_place(self) -> None:
        await self._places.acquire()

    def _free_place(self) -> None:
        self._places.release()

    async def _begin_reading(self) -> None:
        await self._reading.acquire()

    def _end_reading(self) -> None:
        self._reading.release()

    async def _watch(self) -> None:
        """Give up on a server that does not answer."""
        while not self._patience.ended:
            await asyncio.sleep(self._patience.left())
        self._call.cancel()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _iterator(queries: Iterable[Inputs]) -> Iterator[Inputs]:
    try:
        return iter(queries)
    except Exception as error:
        raise InvalidArgumentError(f"queries are an iterable of inputs, not a {type(queries).__name__}") from error


async def _async_iterator(queries: Iterable[Inputs] | AsyncIterable[Inputs]) -> AsyncIterator[Inputs]:
    if isinstance(queries, AsyncIterable):
        async for query in queries:
            yield query
    else:
        for query in _iterator(queries):
            yield query

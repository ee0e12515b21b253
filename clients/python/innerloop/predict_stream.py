"""Asks many queries on a stream, and on another one when that breaks."""

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterable, Iterator
from typing import Any

import grpc
import grpc.aio

from innerloop.adaptation_core import AdaptationCore
from innerloop.async_connection import AsyncConnection
from innerloop.connection import Connection
from innerloop.errors import DeadlineExceededError, InnerloopError, InvalidArgumentError, UnavailableError
from innerloop.examples import EncodedExamples
from innerloop.inputs import Inputs
from innerloop.links import Link
from innerloop.one_stream import OneStream
from innerloop.pending_queries import Patience, PendingQueries, PendingQuery
from innerloop.predictions import Predictions
from innerloop.status import error_from
from innerloop.steps import Steps
from innerloop.v1.adaptation_pb2 import StreamPredictRequest, StreamPredictResponse

LOOK_AHEAD = 32
"""Queries that are taken from the caller before the first of them is answered; a server works on as many."""

TOO_LATE = "the answer did not come within the timeout"

TORN = "Internal error from Core"
"""What gRPC says when it is writing while the server ends the stream; the server's own reason is lost."""


class _NoMoreQueries(Exception):  # noqa: N818 - no error: the end of the caller's queries, as StopIteration is
    """The caller's queries have ended."""


class StreamCore(ABC):
    """The steps of both kinds of streams.

    The abstract methods are operations: plain functions of a synchronous stream, asynchronous ones of the other.

    Args:
        connection: to the server.
        adaptation: that is asked.
        return_logits: whether to ask for logits.
        timeout: seconds to wait for an answer; the client's default when None.
    """

    def __init__(
        self,
        connection: Connection | AsyncConnection,
        adaptation: AdaptationCore,
        return_logits: bool,
        timeout: float | None,
    ) -> None:
        self._core = connection
        self._adaptation = adaptation
        self._return_logits = return_logits
        self._timeout = timeout
        self._pending = PendingQueries()
        self._patience = Patience(self._pending, connection.deadline(timeout).remaining())
        self._all_read = False
        self._failure: BaseException | None = None
        self._stream: OneStream
        self._call: Any
        self._link: Link[Any]

    @abstractmethod
    def _open_stream(self) -> Any:
        """Begin another stream."""

    @abstractmethod
    def _response(self) -> Any:
        """The next response of the stream; None when it has ended as it should."""

    @abstractmethod
    def _next_query(self) -> Any:
        """The next of the caller's queries; raises _NoMoreQueries after the last one."""

    @abstractmethod
    def _take_place(self) -> Any:
        """Wait until there is a place for another query."""

    @abstractmethod
    def _free_place(self) -> None:
        """The caller has an answer more."""

    @abstractmethod
    def _begin_reading(self) -> Any:
        """Wait until nobody else reads a query."""

    @abstractmethod
    def _end_reading(self) -> None:
        """Let others read."""

    def _next_answer(self) -> Steps[Predictions | None]:
        """The answer to the oldest query; None when there are no more queries."""
        broken = False
        while (asked := self._pending.oldest) is None or asked.answer is None:
            try:
                if not (yield from self._receive()):
                    return None
            except InnerloopError as error:
                # The next query finds out whether that passes, by itself; then there is another stream.
                broken = True
                asked = self._pending.oldest or (yield from self._query(0))
                if asked is None:
                    return None
                asked.answer = error
        answer = asked.answer
        if isinstance(answer, InnerloopError):
            if not self._core.policy.may_ask_again(answer):
                raise answer
            answer = yield from self._adaptation.ask(
                asked.query, self._return_logits, self._core.deadline(self._timeout)
            )
        if broken:
            yield self._open_stream
        self._pending.close_oldest()
        self._free_place()
        return answer

    def _receive(self) -> Steps[bool]:
        """Take one response; false when the stream has ended as it should.

        Raises:
            InnerloopError: it has ended otherwise.
        """
        self._patience.begin()
        try:
            response: StreamPredictResponse | None = yield self._response
        except (grpc.RpcError, asyncio.CancelledError) as failure:
            if self._patience.ended:
                if self._link.silent_since(self._patience.began):
                    self._core.give_up(self._link)
                raise DeadlineExceededError(TOO_LATE, request_id=self._stream.request_id) from failure
            if isinstance(failure, asyncio.CancelledError):
                raise
            if failure.details() == TORN:
                raise UnavailableError("the stream broke", request_id=self._stream.request_id) from failure
            raise error_from(failure, self._stream.request_id) from failure
        finally:
            self._patience.pause()
        self._link.hear()
        if response is None:
            self._stream.finish()
            return False
        self._stream.take(response)
        return True

    def _query(self, place: int) -> Steps[PendingQuery | None]:
        """The first query without an answer at or after a place, read from the caller if need be; else None."""
        asked = self._pending.unanswered(place)
        if asked is not None:
            return asked
        # A stream that breaks may leave its sender in the middle of reading a query: the next one waits for it.
        yield self._begin_reading
        try:
            return self._pending.unanswered(place) or (yield from self._read())
        finally:
            self._end_reading()

    def _read(self) -> Steps[PendingQuery | None]:
        """The next of the caller's queries, when there is a place for it; None after the last one."""
        if self._all_read:
            return None
        yield self._take_place
        try:
            query = yield self._next_query
            encoded: EncodedExamples = yield from self._adaptation.encode_steps(
                query, self._core.deadline(self._timeout)
            )
            return self._pending.add(encoded)
        except _NoMoreQueries:
            pass
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as failure:  # for the caller, after the answers to the queries before
            self._failure = failure
        self._all_read = True
        return None

    def _begin_stream(self) -> OneStream:
        self._stream = OneStream(
            self._pending, lambda: self._adaptation.info.id, self._adaptation.labels, self._return_logits
        )
        return self._stream


class PredictStream(StreamCore):
    """A stream of a synchronous client; arguments as those of `Adaptation.predict_stream`.

    gRPC sends what it finds in an iterator, from a thread of its own: there the caller's queries are read.
    """

    def __init__(
        self,
        connection: Connection,
        adaptation: AdaptationCore,
        queries: Iterable[Inputs],
        return_logits: bool,
        timeout: float | None,
    ) -> None:
        super().__init__(connection, adaptation, return_logits, timeout)
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
        """What is sent on one stream: queries of the one before it that have no answer, then further ones."""
        place = 0
        while (asked := self._connection.run(self._query(place))) is not None and stream is self._stream:
            place = asked.sequence + 1
            yield stream.request(asked)

    def _response(self) -> StreamPredictResponse | None:
        response: StreamPredictResponse | None = next(self._call, None)
        return response

    def _next_query(self) -> Inputs:
        if self._over.is_set():
            raise _NoMoreQueries
        try:
            return next(self._queries)
        except StopIteration:
            raise _NoMoreQueries from None

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
        return_logits: bool,
        timeout: float | None,
    ) -> None:
        super().__init__(connection, adaptation, return_logits, timeout)
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
        self._call, self._link = self._connection.open_stream(stream.request_id)
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
            raise _NoMoreQueries from None

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

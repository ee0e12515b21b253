"""Steps that both kinds of streams of queries share; a stream that breaks is followed by another one."""

import asyncio
from abc import ABC, abstractmethod
from typing import Any

import grpc

from innerloop.adaptation_core import AdaptationCore
from innerloop.async_connection import AsyncConnection
from innerloop.connection import Connection
from innerloop.errors import (
    ClientClosedError,
    DeadlineExceededError,
    InnerloopError,
    UnauthenticatedError,
    UnavailableError,
)
from innerloop.examples import EncodedExamples
from innerloop.links import CLOSED, Link
from innerloop.one_stream import OneStream
from innerloop.pending_queries import Patience, PendingQueries, PendingQuery
from innerloop.predictions import Predictions
from innerloop.status import error_from
from innerloop.steps import Steps
from innerloop.v1.adaptation_pb2 import StreamPredictResponse
from innerloop.wanted import Wanted

LOOK_AHEAD = 32
"""So many queries are read ahead of the oldest one without an answer; a server works on as many of one stream."""

TOO_LATE = "the answer did not come within the timeout"

TORN = "Internal error from Core"
"""gRPC's message when it is writing while the server ends the stream; the server's own reason is lost."""


class NoMoreQueriesError(Exception):
    """The caller's queries have ended. A StopIteration would end the steps that wait for the next query."""


class StreamCore(ABC):
    """Reads the caller's queries, sends them, and gives their answers in order.

    Abstract methods that return Any are operations of the steps: a synchronous stream implements them as plain
    functions, an asynchronous one as asynchronous functions.

    Args:
        connection: the connection to the server.
        adaptation: the adaptation to ask.
        rate: samples a second of queries that are arrays of samples; None for others.
        wanted: what answers shall carry.
        timeout: seconds to wait for an answer; the client's default when None.
    """

    def __init__(
        self,
        connection: Connection | AsyncConnection,
        adaptation: AdaptationCore,
        rate: int | None,
        wanted: Wanted,
        timeout: float | None,
    ) -> None:
        self._core = connection
        self._adaptation = adaptation
        self._rate = rate
        self._wanted = wanted
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
        """The next of the caller's queries; raises NoMoreQueriesError after the last one."""

    @abstractmethod
    def _take_place(self) -> Any:
        """Wait until there is a place for another query."""

    @abstractmethod
    def _free_place(self) -> None:
        """Make a place free, because the caller gets an answer."""

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
            # A stream keeps the token that it began with, which may have expired meanwhile.
            expired = isinstance(answer, UnauthenticatedError) and self._core.renews
            if not expired and not self._core.policy.may_ask_again(answer):
                raise answer
            broken = broken or (expired and answer.request_id == self._stream.request_id)
            answer = yield from self._adaptation.ask(asked.query, self._wanted, self._core.deadline(self._timeout))
        if broken:
            self._call.cancel()
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
            if self._core.was_closed(failure):
                raise ClientClosedError(CLOSED, request_id=self._stream.request_id) from failure
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
                query, self._rate, self._core.deadline(self._timeout)
            )
            return self._pending.add(encoded)
        except NoMoreQueriesError:
            pass
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as failure:  # for the caller, after the answers to the queries before
            self._failure = failure
        self._all_read = True
        return None

    def _begin_stream(self) -> OneStream:
        self._stream = OneStream(
            self._pending,
            lambda: self._adaptation.info.id,
            self._adaptation.labels,
            self._wanted,
            self._adaptation.core.priority,
        )
        return self._stream

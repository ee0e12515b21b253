"""Asks many queries on a stream, and on another one when that breaks."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from innerloop.connection import Connection
from innerloop.conversation import LOOK_AHEAD, TOO_LATE, Conversation, OneStream, Patience, Question
from innerloop.errors import DeadlineExceededError, InnerloopError
from innerloop.predictions import Predictions
from innerloop.status import error_from
from innerloop.v1.adaptation_pb2 import StreamPredictRequest
from innerloop.v1.tensor_pb2 import Inputs


class PredictStream:
    """Asks the caller's queries, and gives the answers in order.

    gRPC sends what it finds in an iterator, from a thread of its own: there the caller's queries are read.

    Args:
        connection: to the server.
        queries: of the caller.
        make_stream: prepares what goes over one stream.
        ask_alone: asks a query by itself, with retries, and adapts again if need be.
        timeout: seconds to wait for an answer.
    """

    def __init__(
        self,
        connection: Connection,
        queries: Iterator[Inputs],
        make_stream: Callable[[Conversation], OneStream],
        ask_alone: Callable[[Inputs], Predictions],
        timeout: float,
    ) -> None:
        self._connection = connection
        self._queries = queries
        self._make_stream = make_stream
        self._ask_alone = ask_alone
        self._conversation = Conversation()
        self._patience = Patience(self._conversation, timeout)
        self._places = threading.Semaphore(LOOK_AHEAD)
        # A stream that breaks may leave its thread in the middle of reading a query: the next one has to wait for it.
        self._reading = threading.Lock()
        self._all_read = False
        self._failure: BaseException | None = None
        self._over = threading.Event()
        self._stream: OneStream
        self._call: Any

    def answers(self) -> Iterator[Predictions]:
        """The answer to each query."""
        self._open_stream()
        threading.Thread(target=self._watch, daemon=True).start()
        try:
            while (answer := self._next()) is not None:
                yield answer
            if self._failure is not None:
                raise self._failure
        finally:
            self._over.set()
            self._places.release()
            self._call.cancel()

    def _next(self) -> Predictions | None:
        """The answer to the oldest question; None when there are no more questions."""
        broken = False
        while (question := self._conversation.oldest) is None or question.answer is None:
            try:
                if not self._receive():
                    return None
            except InnerloopError as error:
                # The next question finds out whether that passes, by itself; then there is another stream.
                broken = True
                question = self._conversation.oldest or self._question(0)
                if question is None:
                    return None
                question.answer = error
        answer = question.answer
        if isinstance(answer, InnerloopError):
            if not self._connection.policy.may_ask_again(answer):
                raise answer
            answer = self._ask_alone(question.query)
        if broken:
            self._open_stream()
        self._conversation.close_oldest()
        self._places.release()
        return answer

    def _open_stream(self) -> None:
        self._stream = self._make_stream(self._conversation)
        self._call = self._connection.open_stream(self._requests(self._stream), self._stream.request_id)

    def _receive(self) -> bool:
        """Take one response; false when the stream has ended as it should.

        Raises:
            InnerloopError: it has ended otherwise.
        """
        self._patience.begin()
        try:
            response = next(self._call, None)
        except grpc.RpcError as failure:
            if self._patience.ended:
                raise DeadlineExceededError(TOO_LATE, request_id=self._stream.request_id) from failure
            raise error_from(failure, self._stream.request_id) from failure
        finally:
            self._patience.pause()
        if response is None:
            self._stream.finish()
            return False
        self._stream.take(response)
        return True

    def _requests(self, stream: OneStream) -> Iterator[StreamPredictRequest]:
        """What is sent on one stream: questions of the one before it that have no answer, then further queries."""
        place = 0
        while (question := self._question(place)) is not None and stream is self._stream:
            place = question.sequence + 1
            yield stream.request(question)

    def _question(self, place: int) -> Question | None:
        """The first question without an answer at or after a place, read from the caller if need be; else None."""
        question = self._conversation.unanswered(place)
        if question is not None:
            return question
        with self._reading:
            return self._conversation.unanswered(place) or self._read()

    def _read(self) -> Question | None:
        """The next of the caller's queries, when there is a place for it; None after the last one."""
        if self._all_read:
            return None
        self._places.acquire()
        try:
            if not self._over.is_set():
                return self._conversation.add(next(self._queries))
        except StopIteration:
            pass
        except BaseException as failure:  # for the caller, after the answers to the queries before
            self._failure = failure
        self._all_read = True
        return None

    def _watch(self) -> None:
        """Give up on a server that does not answer: gRPC has no way to wait for a response for a limited time."""
        while not self._over.wait(self._patience.left()):
            if self._patience.ended:
                self._call.cancel()
                return

"""The twin of `PredictStream` for one event loop."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import grpc

from innerloop.async_connection import AsyncConnection
from innerloop.conversation import LOOK_AHEAD, TOO_LATE, Conversation, OneStream, Patience, Question
from innerloop.errors import DeadlineExceededError, InnerloopError, UnavailableError
from innerloop.predictions import Predictions
from innerloop.status import error_from
from innerloop.v1.tensor_pb2 import Inputs

TORN = "Internal error from Core"
"""What gRPC says when it is writing while the server ends the stream; the server's own reason is lost."""


class AsyncPredictStream:
    """Asks the caller's queries in a task, and gives the answers in order; arguments as those of `PredictStream`."""

    def __init__(
        self,
        connection: AsyncConnection,
        queries: AsyncIterator[Inputs],
        make_stream: Callable[[Conversation], OneStream],
        ask_alone: Callable[[Inputs], Awaitable[Predictions]],
        timeout: float,
    ) -> None:
        self._connection = connection
        self._queries = queries
        self._make_stream = make_stream
        self._ask_alone = ask_alone
        self._conversation = Conversation()
        self._patience = Patience(self._conversation, timeout)
        self._places = asyncio.Semaphore(LOOK_AHEAD)
        # A stream that breaks may leave its task in the middle of reading a query: the next one has to wait for it.
        self._reading = asyncio.Lock()
        self._all_read = False
        self._failure: Exception | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._stream: OneStream
        self._call: Any

    async def answers(self) -> AsyncIterator[Predictions]:
        """The answer to each query."""
        self._open_stream()
        self._start(self._watch())
        try:
            while (answer := await self._next()) is not None:
                yield answer
            if self._failure is not None:
                raise self._failure
        finally:
            for task in self._tasks:
                task.cancel()
            self._call.cancel()

    async def _next(self) -> Predictions | None:
        """The answer to the oldest question; None when there are no more questions."""
        broken = False
        while (question := self._conversation.oldest) is None or question.answer is None:
            try:
                if not await self._receive():
                    return None
            except InnerloopError as error:
                # The next question finds out whether that passes, by itself; then there is another stream.
                broken = True
                question = self._conversation.oldest or await self._question(0)
                if question is None:
                    return None
                question.answer = error
        answer = question.answer
        if isinstance(answer, InnerloopError):
            if not self._connection.policy.may_ask_again(answer):
                raise answer
            answer = await self._ask_alone(question.query)
        if broken:
            self._open_stream()
        self._conversation.close_oldest()
        self._places.release()
        return answer

    def _open_stream(self) -> None:
        self._stream = self._make_stream(self._conversation)
        self._call = self._connection.open_stream(self._stream.request_id)
        self._start(self._send(self._stream, self._call))

    async def _receive(self) -> bool:
        """Take one response; false when the stream has ended as it should.

        Raises:
            InnerloopError: it has ended otherwise.
        """
        self._patience.begin()
        try:
            response = await self._call.read()
        except grpc.aio.AioRpcError as failure:
            if failure.details() == TORN:
                raise UnavailableError("the stream broke", request_id=self._stream.request_id) from failure
            raise error_from(failure, self._stream.request_id) from failure
        except asyncio.CancelledError:
            if self._patience.ended:
                raise DeadlineExceededError(TOO_LATE, request_id=self._stream.request_id) from None
            raise
        finally:
            self._patience.pause()
        if response is grpc.aio.EOF:
            self._stream.finish()
            return False
        self._stream.take(response)
        return True

    async def _send(self, stream: OneStream, call: Any) -> None:
        """Send on one stream: questions of the one before it that have no answer, then further queries."""
        place = 0
        try:
            while (question := await self._question(place)) is not None and stream is self._stream:
                place = question.sequence + 1
                await call.write(stream.request(question))
            await call.done_writing()
        except (grpc.RpcError, asyncio.InvalidStateError):
            pass  # the stream broke, which its reader finds out too

    async def _question(self, place: int) -> Question | None:
        """The first question without an answer at or after a place, read from the caller if need be; else None."""
        question = self._conversation.unanswered(place)
        if question is not None:
            return question
        async with self._reading:
            return self._conversation.unanswered(place) or await self._read()

    async def _read(self) -> Question | None:
        """The next of the caller's queries, when there is a place for it; None after the last one."""
        if self._all_read:
            return None
        await self._places.acquire()
        try:
            return self._conversation.add(await anext(self._queries))
        except StopAsyncIteration:
            pass
        except Exception as failure:  # for the caller, after the answers to the queries before
            self._failure = failure
        self._all_read = True
        return None

    async def _watch(self) -> None:
        """Give up on a server that does not answer."""
        while not self._patience.ended:
            await asyncio.sleep(self._patience.left())
        self._call.cancel()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

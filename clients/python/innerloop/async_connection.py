"""Carries out calls asynchronously: the twin of `connection`."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
import grpc.aio

from innerloop.bearer import Metadata
from innerloop.calls import Call, Receiver, call_metadata
from innerloop.channel import open_async_channel
from innerloop.connection_core import ConnectionCore, ConnectionSettings
from innerloop.errors import ClientClosedError
from innerloop.links import CLOSED, Link, Links
from innerloop.locks import acquire_async
from innerloop.retry import Deadline
from innerloop.steps import Steps, run_async

T = TypeVar("T")


class AsyncConnection(ConnectionCore):
    """Connections to one server, one for each event loop that asks; arguments as those of `ConnectionCore`."""

    def __init__(self, settings: ConnectionSettings) -> None:
        super().__init__(settings)
        target, credentials = settings.target, self.credentials
        self._links: Links[grpc.aio.Channel] = Links(lambda: open_async_channel(target, credentials))
        self._closing: set[asyncio.Future[None]] = set()

    async def run(self, steps: Steps[T]) -> T:
        """Carry out steps."""
        return await run_async(steps)

    async def send(self, call: Call[Any], deadline: Deadline) -> Any:
        """The response to a call, tried again as the policy says."""
        response: Any = await self.policy.async_retrying(deadline, safe=call.safe)(self._attempt, call, deadline)
        return response

    async def apart(self, work: Callable[[], T]) -> T:
        """The result of some work, done in a thread."""
        return await asyncio.to_thread(work)

    async def acquire(self, lock: threading.Lock, deadline: Deadline) -> None:
        """Take a lock."""
        await acquire_async(lock, deadline)

    async def open_stream(self, request_id: str) -> tuple[Any, Link[grpc.aio.Channel]]:
        """A StreamPredict call, to be written to and read from, and its link."""
        metadata = await self._metadata(request_id)
        link = self._links.take(asyncio.get_running_loop())
        call = link.methods["StreamPredict"](metadata=metadata)
        call.add_done_callback(lambda _: self._release(link))
        return call, link

    def give_up(self, link: Link[grpc.aio.Channel]) -> None:
        """Let later calls make another link than this one."""
        if self._links.give_up(link):
            self._close_later(link)

    def was_closed(self, failure: BaseException) -> bool:
        """Whether a call failed because the client was closed.

        gRPC cancels the calls of a channel that is closed, as if somebody had cancelled their tasks.
        """
        task = asyncio.current_task()
        cancelled = isinstance(failure, asyncio.CancelledError) and task is not None and task.cancelling() > 0
        return self._links.closed and not cancelled

    async def close(self) -> None:
        """Close the channels, those of other event loops too."""
        for link in self._links.close():
            if link.loop is asyncio.get_running_loop():
                await link.channel.close()
            elif link.loop is not None and link.loop.is_running():
                asyncio.run_coroutine_threadsafe(link.channel.close(), link.loop)

    async def _attempt(self, call: Call[Any], deadline: Deadline) -> Any:
        metadata = await self._metadata(call.request_id)
        link, began = self._links.take(asyncio.get_running_loop()), time.monotonic()
        try:
            method = link.methods[call.method]
            response = method(call.request, timeout=deadline.remaining(), metadata=metadata)
            response = await (response if call.receive is None else _received(response, call.receive))
            link.hear()
            return response
        except grpc.RpcError as failure:
            raise self._links.error_from(failure, link, began, call.request_id) from failure
        except asyncio.CancelledError as failure:
            if self.was_closed(failure):
                raise ClientClosedError(CLOSED, request_id=call.request_id) from None
            raise
        finally:
            self._release(link)

    async def _metadata(self, request_id: str) -> Metadata:
        """Metadata of a call: its id, and the credential if there is one."""
        own = call_metadata(request_id)
        return own if self._bearer is None else own + await self._bearer.metadata_async()

    def _release(self, link: Link[grpc.aio.Channel]) -> None:
        if self._links.release(link):
            self._close_later(link)

    def _close_later(self, link: Link[grpc.aio.Channel]) -> None:
        if link.loop is not None and link.loop.is_running():
            closing = asyncio.ensure_future(link.channel.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


async def _received(stream: Any, receive: Callable[[], Receiver]) -> Receiver:
    """What takes the messages of a stream, after it has taken all."""
    try:
        receiver = receive()
        async for message in stream:
            receiver.take(message)
    finally:
        stream.cancel()  # does nothing once it has ended
    return receiver

"""Carries out calls synchronously."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import grpc

from innerloop.bearer import Metadata
from innerloop.calls import Call, Receiver, call_metadata
from innerloop.channel import open_channel
from innerloop.connection_core import ConnectionCore, ConnectionSettings
from innerloop.errors import ClientClosedError, InnerloopError
from innerloop.links import CLOSED, Link, Links
from innerloop.locks import acquire
from innerloop.retry import Deadline
from innerloop.steps import Steps, run
from innerloop.v1.adaptation_pb2 import StreamPredictRequest

T = TypeVar("T")


class Connection(ConnectionCore):
    """Connections to one server, for many threads; arguments as those of `ConnectionCore`."""

    def __init__(self, settings: ConnectionSettings) -> None:
        super().__init__(settings)
        target, credentials = settings.target, self.credentials
        self._links: Links[grpc.Channel] = Links(lambda: open_channel(target, credentials))

    def run(self, steps: Steps[T]) -> T:
        """Carry out steps."""
        return run(steps)

    def send(self, call: Call[Any], deadline: Deadline) -> Any:
        """The response to a call, tried again as the policy says."""
        return self.policy.retrying(deadline, safe=call.safe)(self._attempt, call, deadline)

    def apart(self, work: Callable[[], T]) -> T:
        """The result of some work, done at once: there is no event loop to hold up."""
        return work()

    def acquire(self, lock: threading.Lock, deadline: Deadline) -> None:
        """Take a lock."""
        acquire(lock, deadline)

    def open_stream(self, requests: Iterator[StreamPredictRequest], request_id: str) -> tuple[Any, Link[grpc.Channel]]:
        """A StreamPredict call that sends what `requests` gives, which is read in a thread of its own; and its link."""
        metadata = self._metadata(request_id)
        link = self._links.take()
        try:
            call = link.methods["StreamPredict"](requests, metadata=metadata)
        except ValueError as refusal:
            self._release(link)
            raise self._error_of(refusal, request_id) from refusal
        if not call.add_callback(lambda: self._release_apart(link)):
            self._release(link)
        return call, link

    def give_up(self, link: Link[grpc.Channel]) -> None:
        """Let later calls make another link than this one."""
        if self._links.give_up(link):
            link.channel.close()

    def was_closed(self, failure: BaseException) -> bool:
        """Whether a call failed because the client was closed."""
        del failure
        return self._links.closed

    def close(self) -> None:
        """Close the channel."""
        for link in self._links.close():
            link.channel.close()

    def _attempt(self, call: Call[Any], deadline: Deadline) -> Any:
        metadata = self._metadata(call.request_id)
        link, began = self._links.take(), time.monotonic()
        try:
            response = link.methods[call.method](call.request, timeout=deadline.remaining(), metadata=metadata)
            if call.receive is not None:
                response = _received(response, call.receive)
            link.hear()
            return response
        except grpc.RpcError as failure:
            raise self._links.error_from(failure, link, began, call.request_id) from failure
        except InnerloopError:  # of what takes the messages of a stream; some are ValueErrors
            raise
        except ValueError as refusal:
            raise self._error_of(refusal, call.request_id) from refusal
        finally:
            self._release(link)

    def _metadata(self, request_id: str) -> Metadata:
        """Metadata of a call: its id, and the credential if there is one."""
        own = call_metadata(request_id)
        return own if self._bearer is None else own + self._bearer.metadata()

    def _error_of(self, refusal: ValueError, request_id: str) -> Exception:
        """Error to raise when gRPC refuses a call because another thread has closed the channel a moment ago."""
        return ClientClosedError(CLOSED, request_id=request_id) if self._links.closed else refusal

    def _release(self, link: Link[grpc.Channel]) -> None:
        if self._links.release(link):
            link.channel.close()

    def _release_apart(self, link: Link[grpc.Channel]) -> None:
        """The same on a thread of gRPC: there, closing a channel waits for events that this very thread handles."""
        if self._links.release(link):
            threading.Thread(target=link.channel.close, daemon=True).start()


def _received(stream: Any, receive: Callable[[], Receiver]) -> Receiver:
    """What takes the messages of a stream, after it has taken all."""
    try:
        receiver = receive()
        for message in stream:
            receiver.take(message)
    finally:
        stream.cancel()  # does nothing once it has ended
    return receiver

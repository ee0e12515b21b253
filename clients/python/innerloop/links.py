"""Connections in use, each given up when nothing is heard on it any more.

A load balancer or NAT may forget a connection without telling either side. Keep-alive (see `channel`) finds that out
within 20 seconds. A call that times out sooner finds it out too: unless something was heard on its connection
meanwhile, the next call makes a new one.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio

from innerloop.errors import ClientClosedError, InnerloopError
from innerloop.status import error_from, is_answered
from innerloop.v1.adaptation_pb2_grpc import AdaptationServiceStub
from innerloop.v1.model_pb2_grpc import ModelServiceStub

CLOSED = "the client was closed during the call"

Channel = TypeVar("Channel", grpc.Channel, grpc.aio.Channel)


class Link(Generic[Channel]):
    """One connection to the server.

    Attributes:
        channel: of gRPC, which connects when first used.
        methods: the calls of both services by their names.
        loop: the event loop that it belongs to; None for a synchronous one.
        users: calls on it that have not ended.
    """

    def __init__(self, channel: Channel, loop: asyncio.AbstractEventLoop | None) -> None:
        self.channel: Channel = channel
        self.methods: dict[str, Callable[..., Any]] = {
            **vars(AdaptationServiceStub(channel)),
            **vars(ModelServiceStub(channel)),
        }
        self.loop = loop
        self.users = 0
        self._heard: float | None = None

    def hear(self) -> None:
        """Note that the server has answered just now."""
        self._heard = time.monotonic()

    def silent_since(self, moment: float) -> bool:
        """Whether the server has not answered after a moment of the monotonic clock."""
        return self._heard is None or self._heard < moment


class Links(Generic[Channel]):
    """The present link of each event loop, or the only one of a synchronous client; for many threads.

    Args:
        open_channel: makes a channel that shares its connection with no other.
    """

    def __init__(self, open_channel: Callable[[], Channel]) -> None:
        self._open_channel: Callable[[], Channel] = open_channel
        self._present: dict[asyncio.AbstractEventLoop | None, Link[Channel]] = {}
        self._lock = threading.Lock()
        self.closed = False

    def take(self, loop: asyncio.AbstractEventLoop | None = None) -> Link[Channel]:
        """The present link, for one call, which has to be released.

        Raises:
            ClientClosedError: the client was closed.
        """
        with self._lock:
            if self.closed:
                raise ClientClosedError("the client was closed; make another one")
            self._forget_ended_loops()
            if loop not in self._present:
                self._present[loop] = Link(self._open_channel(), loop)
            link = self._present[loop]
            link.users += 1
            return link

    def release(self, link: Link[Channel]) -> bool:
        """Note that a call has ended; true when its link was given up and has no other call, and is to be closed."""
        with self._lock:
            link.users -= 1
            return link.users == 0 and self._present.get(link.loop) is not link

    def give_up(self, link: Link[Channel]) -> bool:
        """Let later calls make another link; those under way go on with this one.

        Returns:
            whether none is, and the link is to be closed.
        """
        with self._lock:
            if self._present.get(link.loop) is not link:
                return False
            del self._present[link.loop]
            return link.users == 0

    def error_from(self, failure: grpc.RpcError, link: Link[Channel], began: float, request_id: str) -> InnerloopError:
        """The error that a failed call stands for; a link that was silent all the time is given up.

        Args:
            failure: what gRPC raised.
            link: that the call was made on.
            began: when the call was made, on the monotonic clock.
            request_id: of the call.
        """
        if self.closed:
            return ClientClosedError(CLOSED, request_id=request_id)
        if is_answered(failure):
            link.hear()
        elif failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED and link.silent_since(began):
            self.give_up(link)
        return error_from(failure, request_id)

    def close(self) -> list[Link[Channel]]:
        """Refuse calls from now on; returns the links whose channels are to be closed."""
        with self._lock:
            self.closed = True
            self._forget_ended_loops()
            links = list(self._present.values())
            self._present.clear()
            return links

    def _forget_ended_loops(self) -> None:
        """Drop the links of closed event loops; gRPC closes their channels when they are collected."""
        for loop in [loop for loop in self._present if loop is not None and loop.is_closed()]:
            del self._present[loop]

"""Sends serialised requests over several connections."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import cycle
from types import TracebackType
from typing import Any, NamedTuple, Self

import grpc.aio

from innerloop.bearer import make_bearer
from innerloop.channel import make_credentials, open_async_channel
from innerloop.errors import InnerloopError
from innerloop.status import error_from
from innerloop.v1 import adaptation_pb2 as pb
from innerloop_command.bench.settings import BenchSettings

SERVICE = pb.DESCRIPTOR.services_by_name["AdaptationService"].full_name

RESPONSES: dict[str, Callable[[bytes], Any]] = {
    "Adapt": pb.AdaptResponse.FromString,
    "Predict": pb.PredictResponse.FromString,
    "AdaptPredict": pb.AdaptPredictResponse.FromString,
    "DeleteAdaptation": pb.DeleteAdaptationResponse.FromString,
}


class Answer(NamedTuple):
    """The response to a request.

    Attributes:
        response: the message, or None if the call failed.
        error: why it failed, or None.
    """

    response: Any
    error: InnerloopError | None

    @property
    def status(self) -> str:
        """Name of the gRPC status."""
        return "OK" if self.error is None else self.error.code.name

    def check(self) -> None:
        """Raise the error if there is one."""
        if self.error is not None:
            raise self.error


class Sender:
    """Connections to one server, used in turn; a context manager for one event loop.

    A connection ends at one process of the server; several connections reach several processes.

    Attributes:
        calls: number of calls so far by RPC and gRPC status.
    """

    def __init__(self, settings: BenchSettings) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()
        self._timeout = settings.timeout
        bearer = make_bearer(settings.server, settings.tls, settings.api_key, None, insecure=False)
        self._metadata = None if bearer is None else bearer.metadata()
        self._channels = [
            open_async_channel(settings.server, make_credentials(settings.tls)) for _ in range(settings.connections)
        ]
        # Without a serializer, requests are bytes and sent as they are.
        self._methods: dict[str, Iterator[Any]] = {
            name: cycle([channel.unary_unary(f"/{SERVICE}/{name}", None, read) for channel in self._channels])
            for name, read in RESPONSES.items()
        }

    async def connect(self) -> None:
        """Connect, so that no request waits for it. Where that fails, requests will tell why."""
        with suppress(TimeoutError):
            await asyncio.wait_for(
                asyncio.gather(*(channel.channel_ready() for channel in self._channels)), self._timeout
            )

    async def send(self, rpc: str, request: bytes) -> Answer:
        """Send one request, once, and wait for the answer."""
        call = next(self._methods[rpc])
        try:
            answer = Answer(await call(request, timeout=self._timeout, metadata=self._metadata), None)
        except grpc.aio.AioRpcError as failure:
            answer = Answer(None, error_from(failure, ""))
        self.calls[rpc, answer.status] += 1
        return answer

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(channel.close() for channel in self._channels))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

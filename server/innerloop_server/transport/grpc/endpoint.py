"""The gRPC services on their port, from start to stop."""

import asyncio

import structlog
from grpc.aio import Server

from innerloop_server.domain.model_versions import ModelVersions
from innerloop_server.observability.call_metrics import CallMetrics
from innerloop_server.serving.interface import Serving
from innerloop_server.settings import ServerSettings
from innerloop_server.transport.codec.requests import RequestLimits
from innerloop_server.transport.grpc.adaptation_service import AdaptationServicer
from innerloop_server.transport.grpc.calls import Calls
from innerloop_server.transport.grpc.gate import Gate
from innerloop_server.transport.grpc.health import Health
from innerloop_server.transport.grpc.identity import Identity
from innerloop_server.transport.grpc.listen import build_server
from innerloop_server.transport.grpc.make_identity import make_authenticator, make_certificates
from innerloop_server.transport.grpc.memory_return import give_memory_back
from innerloop_server.transport.grpc.model_service import ModelServicer
from innerloop_server.transport.grpc.strangers import Strangers

LINGER_SECONDS = 0.2
"""Seconds between the last answer and the shutdown of gRPC, in which new requests are refused with a reason."""
FLUSH_SECONDS = 1.0
"""Seconds that answers may take to leave, and after which health watches, which never end by themselves, are ended."""


class Endpoint:
    """Answers gRPC in this process; listens to the model repository, for the health service.

    Args:
        settings: of the server.
        metrics: of RPCs.
        share_port: whether other processes may listen on the same port.

    Raises:
        ConfigurationError: callers can't be told apart as the settings say.
    """

    def __init__(self, settings: ServerSettings, metrics: CallMetrics, *, share_port: bool = False) -> None:
        self._settings = settings
        self._metrics = metrics
        self._share_port = share_port
        self._log = structlog.get_logger()
        self._health = Health()
        self._authenticator = make_authenticator(settings)
        self._identity = Identity(make_certificates(settings), self._authenticator)
        self._gate = Gate(self._identity.caller, admin=settings.admin, downloads=settings.downloads)
        self._calls = Calls(self._gate, metrics)
        self._server: Server | None = None
        self._giving_memory_back: asyncio.Task[None] | None = None

    async def start(self, serving: Serving) -> int:
        """Listen; returns the port.

        Raises:
            ConfigurationError: the port is taken or the address is not of this machine, or the TLS files are unusable.
        """
        settings = self._settings
        limits = RequestLimits(
            settings.max_support,
            settings.max_query,
            settings.usual_time_to_live,
            settings.max_time_to_live,
            int(settings.max_message_bytes),
        )
        self._server, port = build_server(
            settings,
            limits,
            AdaptationServicer(serving, self._calls, limits, self._metrics),
            ModelServicer(serving, self._calls, limits),
            self._health,
            self._gate,
            [Strangers(self._identity, self._calls)] if settings.takes_credentials else [],
            share_port=self._share_port,
        )
        await self._health.start()
        if self._authenticator is not None:
            await self._authenticator.start()
        await self._server.start()
        self._giving_memory_back = asyncio.create_task(give_memory_back())
        return port

    async def model_changed(self, model: ModelVersions) -> None:
        """See ModelListener."""
        await self._health.model_changed(model)

    async def model_removed(self, name: str) -> None:
        """See ModelListener."""
        await self._health.model_removed(name)

    async def models_loaded(self) -> None:
        """Every model of the folder was loaded or refused."""
        await self._health.models_loaded()

    async def store_changed(self, *, up: bool) -> None:
        """The store of adaptations went away or came back."""
        await self._health.store_changed(up=up)

    async def engine_changed(self, *, answers: bool) -> None:
        """The process that computes for this one does not answer any more, or does again."""
        await self._health.engine_changed(answers=answers)

    async def stop(self) -> bool:
        """Stop without losing a request that was accepted; false if that took longer than the grace period.

        The period includes the time in which calls are ended that were not answered until then.
        """
        await self._health.stop()
        await asyncio.sleep(self._settings.drain_seconds)
        self._calls.close()
        answered = True
        try:
            await asyncio.wait_for(self._calls.wait_idle(), max(self._settings.grace_seconds - FLUSH_SECONDS, 0.0))
        except TimeoutError:
            answered = False
            self._log.warning("requests were still under way when the grace period ended")
        else:
            await asyncio.sleep(LINGER_SECONDS)
        if self._giving_memory_back is not None:
            self._giving_memory_back.cancel()
        if self._server is not None:
            await self._server.stop(FLUSH_SECONDS)
        if self._authenticator is not None:
            self._authenticator.stop()
        return answered

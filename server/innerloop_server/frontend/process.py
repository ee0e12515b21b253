"""A front end's life: start, answer gRPC, stop."""

import asyncio
import os
import socket
from pathlib import Path
from typing import cast

import structlog
from prometheus_client import CollectorRegistry

from innerloop_server.frontend import messages
from innerloop_server.frontend.engine_client import EngineClient
from innerloop_server.frontend.remote_serving import RemoteServing
from innerloop_server.frontend.signs_of_life import ASK_SECONDS, SILENT_SECONDS
from innerloop_server.ipc.link import Link
from innerloop_server.ipc.segment import Segment
from innerloop_server.observability.call_metrics import CallMetrics
from innerloop_server.observability.logs import configure_logging
from innerloop_server.observability.merged import write_metrics_to
from innerloop_server.settings import ConfigurationError, ServerSettings
from innerloop_server.transport.grpc.endpoint import Endpoint


class FrontEndProcess:
    """One front end, in its own process.

    Args:
        segment: shared with the engine process.
    """

    def __init__(self, segment: Segment) -> None:
        self._link: Link[messages.ToFrontEnd] = Link(messages.ToFrontEnd, self._receive, _engine_process_is_gone)
        self._engine = EngineClient(self._link, segment)
        self._serving = RemoteServing(self._engine)
        self._news: asyncio.Queue[messages.ToFrontEnd] = asyncio.Queue()

    async def run(self, end: socket.socket) -> bool:
        """Serve until told to stop; false if requests were under way when the grace period ended."""
        await self._link.open(end)
        start = cast("messages.Start", await self._news.get())
        settings = ServerSettings.model_validate_json(start.settings)
        configure_logging(settings.log_level, settings.log_format)
        write_metrics_to(Path(start.metrics_folder), start.slot)
        try:
            endpoint = Endpoint(settings, CallMetrics(CollectorRegistry()), share_port=True)
            for model in start.models:
                await endpoint.model_changed(model)
            await endpoint.store_changed(up=start.store_up)
            if start.loaded:
                await endpoint.models_loaded()
            await endpoint.start(self._serving)
        except ConfigurationError as error:
            self._link.send(messages.Refused(str(error)))
            await asyncio.sleep(0)  # the message is sent at the end of this turn
            return True
        self._link.send(messages.Listening())
        structlog.get_logger().info("front end started", slot=start.slot, pid=os.getpid())
        watching = asyncio.create_task(self._watch_engine(endpoint))
        answered = await self._follow(endpoint)
        watching.cancel()
        return answered

    async def _follow(self, endpoint: Endpoint) -> bool:
        """Show the news from the engine process to callers, in order, until it says stop; see Endpoint.stop."""
        while True:
            news = await self._news.get()
            match news:
                case messages.ModelChanged():
                    await endpoint.model_changed(news.model)
                case messages.ModelRemoved():
                    await endpoint.model_removed(news.name)
                case messages.ModelsLoaded():
                    await endpoint.models_loaded()
                case messages.StoreChanged():
                    await endpoint.store_changed(up=news.up)
                case messages.Stop():
                    return await endpoint.stop()

    async def _watch_engine(self, endpoint: Endpoint) -> None:
        """Ask the engine process for an answer again and again; callers are told when none comes."""
        while True:
            asking = asyncio.create_task(self._serving.models())
            answered, _ = await asyncio.wait([asking], timeout=SILENT_SECONDS)
            if not answered:
                structlog.get_logger().error("the engine process does not answer")
                await endpoint.engine_changed(answers=False)
                await asyncio.wait([asking])
                structlog.get_logger().info("the engine process answers again")
                await endpoint.engine_changed(answers=True)
            await asyncio.sleep(ASK_SECONDS)

    def _receive(self, message: messages.ToFrontEnd) -> None:
        match message:
            case messages.Reply() | messages.Failed() | messages.Released():
                self._engine.receive(message)
                return
            # Models are remembered before the next message is read, which may answer about their adaptations.
            case messages.Start():
                for model in message.models:
                    self._serving.model_changed(model)
            case messages.ModelChanged():
                self._serving.model_changed(message.model)
            case messages.ModelRemoved():
                self._serving.model_removed(message.name)
        self._news.put_nowait(message)


def _engine_process_is_gone() -> None:
    os._exit(1)  # nothing that is under way here can end well

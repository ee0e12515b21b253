"""The server's life: start, serve, stop."""

import asyncio
import json
import os
import signal
from importlib.metadata import version
from pathlib import Path

import structlog
from prometheus_client import start_http_server

from innerloop_server.adaptations.store import AdaptationStore
from innerloop_server.engine.interface import Engine
from innerloop_server.engine.thread import EngineThread
from innerloop_server.models.model import ModelEntry
from innerloop_server.models.repository import ModelRepository
from innerloop_server.observability.metrics import Metrics
from innerloop_server.scheduling.queue import BatchLimits
from innerloop_server.scheduling.scheduler import QueueLimits, Scheduler
from innerloop_server.serving.local import LocalServing
from innerloop_server.settings import ConfigurationError, ServerSettings
from innerloop_server.transport.adaptation_service import AdaptationServicer
from innerloop_server.transport.calls import Calls
from innerloop_server.transport.health import Health
from innerloop_server.transport.listen import build_server, identity_of
from innerloop_server.transport.model_service import ModelServicer
from innerloop_server.transport.requests import RequestLimits

EXPIRY_INTERVAL = 1.0
LINGER_SECONDS = 0.2
"""For requests that clients send on getting their last answer: until gRPC shuts down they are refused with a reason."""
FLUSH_SECONDS = 1.0
"""For answers that are on their way out, and for health watches, which never end by themselves."""


async def run_server(settings: ServerSettings, engine: Engine) -> bool:
    """Serve until SIGTERM or SIGINT, then stop gracefully; a second signal stops at once.

    Returns:
        whether every request that was accepted was answered.

    Raises:
        ConfigurationError: a port can't be had, the TLS files are unusable, the model folder can't be read, or the
            ready file can't be written.
    """
    stop = _stop_signals()
    server = InnerloopServer(settings, engine)
    await server.start()
    loading = asyncio.create_task(server.load_models())
    stopped = asyncio.create_task(stop.get())
    await asyncio.wait({loading, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if loading.done():
        loading.result()  # a server that can't become ready must not look as if it only took its time
    await stopped
    loading.cancel()
    stopping = asyncio.create_task(server.stop())
    again = asyncio.create_task(stop.get())
    await asyncio.wait({stopping, again}, return_when=asyncio.FIRST_COMPLETED)
    again.cancel()
    return stopping.done() and stopping.result()


class InnerloopServer:
    """All parts of a server, put together."""

    def __init__(self, settings: ServerSettings, engine: Engine) -> None:
        self._settings = settings
        self._log = structlog.get_logger()
        self._metrics = Metrics(version("innerloop"), settings.adaptation_bytes)
        self._metrics.watch_memory(engine.memory)
        self._health = Health()
        self._thread = EngineThread()
        self._store = AdaptationStore(settings.adaptation_bytes, self._metrics)
        self._repository = ModelRepository(
            settings.models, engine, self._thread, [self._health, _MetricsListener(self._metrics)]
        )
        self._calls = Calls(identity_of(settings), self._metrics)
        self._server, self._port = build_server(settings, *self._servicers(), self._health)
        self._metrics_port = 0
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen on both ports; models are loaded later.

        Raises:
            ConfigurationError: the metrics port is taken.
        """
        host, port = self._settings.host, self._settings.metrics_port
        try:
            exporter, _ = start_http_server(port, host, self._metrics.registry)
        except OSError as error:
            raise ConfigurationError(
                f"metrics_port: can't listen on {host}:{port}: it is taken or not of this machine"
            ) from error
        self._metrics_port = exporter.server_port
        await self._health.start()
        await self._server.start()
        self._sweeper = asyncio.create_task(self._expire_adaptations())
        self._log.info("listening", host=host, port=self._port, metrics_port=self._metrics_port, pid=os.getpid())

    async def load_models(self) -> None:
        """Load every bundle, then say that the server is ready.

        Raises:
            ConfigurationError: the model folder can't be read, or the ready file can't be written.
        """
        try:
            await self._repository.load_all()
        except OSError as error:
            raise ConfigurationError(f"models: can't read {self._settings.models} ({error.strerror})") from error
        await self._health.models_loaded()
        self._log.info("ready", port=self._port, metrics_port=self._metrics_port)
        if self._settings.ready_file is not None:
            self._write_ready_file(self._settings.ready_file)

    async def stop(self) -> bool:
        """Stop without losing a request that was accepted; false if that took longer than the grace period."""
        self._log.info("stopping")
        await self._health.stop()
        await asyncio.sleep(self._settings.drain_seconds)
        self._calls.close()
        try:
            await asyncio.wait_for(self._calls.wait_idle(), self._settings.grace_seconds)
        except TimeoutError:
            self._log.warning("requests were still under way when the grace period ended")
        else:
            await asyncio.sleep(LINGER_SECONDS)
        await self._server.stop(FLUSH_SECONDS)
        if self._sweeper is not None:
            self._sweeper.cancel()
        clean = self._thread.stop(FLUSH_SECONDS)
        self._log.info("stopped", clean=clean)
        return clean

    def _write_ready_file(self, file: Path) -> None:
        ports = {"port": self._port, "metrics_port": self._metrics_port, "pid": os.getpid()}
        scratch = file.with_name(f".{file.name}.writing")
        try:
            scratch.write_text(json.dumps(ports))
            scratch.replace(file)  # whoever waits for the file never reads half of it
        except OSError as error:
            raise ConfigurationError(f"ready_file: can't write {file} ({error.strerror})") from error

    def _servicers(self) -> tuple[AdaptationServicer, ModelServicer]:
        settings = self._settings
        scheduler = Scheduler(
            self._thread,
            BatchLimits(settings.max_batch_tasks, settings.max_batch_bytes),
            QueueLimits(settings.max_queue_requests, settings.max_queue_bytes),
            self._metrics,
        )
        serving = LocalServing(self._repository, scheduler, self._store, self._metrics)
        limits = RequestLimits(
            settings.max_support, settings.max_query, settings.time_to_live, settings.max_time_to_live
        )
        return (
            AdaptationServicer(serving, self._calls, limits, self._metrics),
            ModelServicer(serving, self._calls, limits, admin=settings.admin),
        )

    async def _expire_adaptations(self) -> None:
        while True:
            await asyncio.sleep(EXPIRY_INTERVAL)
            self._store.expire()


class _MetricsListener:
    """Shows the models' states in the metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def model_changed(self, entry: ModelEntry) -> None:
        version, method = "", ""
        if entry.description is not None:
            version, method = entry.description.version, entry.description.method
        self._metrics.model(entry.name, version, method, entry.state)

    async def model_removed(self, entry: ModelEntry) -> None:
        self._metrics.model_gone(entry.name)


def _stop_signals() -> "asyncio.Queue[int]":
    """Receives every SIGTERM and SIGINT from now on."""
    loop = asyncio.get_running_loop()
    received: asyncio.Queue[int] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, received.put_nowait, number)
    return received

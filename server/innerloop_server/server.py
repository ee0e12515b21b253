"""The server's life: start, serve, stop."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import structlog
from prometheus_client import start_http_server

from innerloop_server.adaptations.keeper import Keeper
from innerloop_server.adaptations.parts import KeptParts
from innerloop_server.adaptations.stores.interface import StoreUnusableError
from innerloop_server.domain.callers import OwnerLimits
from innerloop_server.domain.model_versions import ModelVersions
from innerloop_server.domain.timings import Operation
from innerloop_server.engine.interface import Engine
from innerloop_server.frontend.supervisor import FrontEnds
from innerloop_server.make_mirror import make_mirror
from innerloop_server.make_store import make_store
from innerloop_server.models.repository import ModelListener, ModelRepository
from innerloop_server.observability.metrics import Metrics
from innerloop_server.scheduling.admission import QueueLimits
from innerloop_server.scheduling.lanes import Lanes
from innerloop_server.scheduling.policy import BatchLimits
from innerloop_server.scheduling.scheduler import Scheduler
from innerloop_server.serving.interface import Serving
from innerloop_server.serving.local import LocalServing
from innerloop_server.serving.migrator import Migrator
from innerloop_server.serving.rate_limits import RateLimits
from innerloop_server.settings import ConfigurationError, ServerSettings
from innerloop_server.transport.grpc.endpoint import FLUSH_SECONDS, Endpoint

SWEEP_INTERVAL = 1.0
"""Seconds between two moments in which uses of adaptations are noted and expired ones dropped."""


class Entrance(ModelListener, Protocol):
    """The process that receives requests: this one, or front ends. It is told when models and the store change."""

    async def start(self, serving: Serving) -> int:
        """Answer gRPC by asking `serving`; returns the port. Raises ConfigurationError when it can't."""

    async def models_loaded(self) -> None:
        """Every model of the folder was loaded or refused."""

    async def store_changed(self, *, up: bool) -> None:
        """The store of adaptations went away or came back."""

    async def stop(self) -> bool:
        """Stop without losing a request that was accepted; false if that took longer than the grace period."""


async def run_server(settings: ServerSettings, engine: Engine) -> bool:
    """Serve until SIGTERM or SIGINT, then stop gracefully; a second signal stops at once.

    Returns:
        whether every request that was accepted was answered.

    Raises:
        ConfigurationError: a port can't be had, the TLS files are unusable, the model folder can't be read, or the
            ready file can't be written.
    """
    with metrics_folder(settings) as folder:
        return await _run(InnerloopServer(settings, engine, folder))


async def _run(server: "InnerloopServer") -> bool:
    stop = _stop_signals()
    await server.start()
    loading = asyncio.create_task(server.load_models())
    stopped = asyncio.create_task(stop.get())
    await asyncio.wait({loading, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if loading.done():
        loading.result()  # raises, so that a server that can't become ready ends
    await stopped
    loading.cancel()
    stopping = asyncio.create_task(server.stop())
    again = asyncio.create_task(stop.get())
    await asyncio.wait({stopping, again}, return_when=asyncio.FIRST_COMPLETED)
    again.cancel()
    return stopping.done() and stopping.result()


class InnerloopServer:
    """All parts of a server, put together."""

    def __init__(self, settings: ServerSettings, engine: Engine, metrics_folder: Path | None) -> None:
        self._settings = settings
        self._log = structlog.get_logger()
        kept_bytes = settings.adaptation_bytes + settings.host_adaptation_bytes
        self._metrics = Metrics(version("innerloop"), kept_bytes, metrics_folder)
        self._metrics.watch_memory(engine.memory)
        self._entrance: Entrance = (
            Endpoint(settings, self._metrics)
            if metrics_folder is None
            else FrontEnds(settings, self._metrics, metrics_folder)
        )
        self._engine = engine
        self._lanes = Lanes(engine.threads, engine.start_worker)
        self._keeper = Keeper(
            make_store(settings, self._metrics, self._store_changed),
            kept_bytes,
            self._metrics,
            KeptParts(int(settings.recipe_bytes), int(settings.state_bytes)),
            owner_budget=settings.owner_adaptation_bytes,
            owner_most=settings.owner_adaptations,
        )
        self._mirror = make_mirror(settings)
        self._repository = ModelRepository(
            Path(settings.models) if self._mirror is None else self._mirror.models,
            engine,
            self._lanes.call,
            [self._entrance, _MetricsListener(self._metrics)],
            settings.max_load_seconds,
            settings.require_signed,
            None if self._mirror is None else self._mirror.refresh,
        )
        self._repository.on_failure = self._metrics.model_refused
        self._port = self._metrics_port = 0
        self._scheduler: Scheduler | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._migrator: Migrator | None = None
        self._telling: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen on both ports; models are known from then on, and loaded later.

        Raises:
            ConfigurationError: a port can't be had, the TLS files are unusable, or the model folder can't be read, or
                the store can't be used.
        """
        self._metrics_port = self._open_metrics()
        try:
            await self._keeper.open()
        except StoreUnusableError as error:
            raise ConfigurationError(f"store: {error}") from error
        with _reading_models():
            if self._mirror is not None:
                self._mirror.open()
            await self._repository.announce()
        self._port = await self._entrance.start(self._serving())
        kind, durability = (self._settings.store or "sqlite").partition(":")[0], self._settings.durability
        self._log.info("adaptations are kept", store=kind, durability=durability if kind != "memory" else "none")
        self._sweeper = asyncio.create_task(self._sweep_adaptations())
        self._log.info(
            "listening", host=self._settings.host, port=self._port, metrics_port=self._metrics_port, pid=os.getpid()
        )

    async def load_models(self) -> None:
        """Load every bundle, then say that the server is ready.

        Raises:
            ConfigurationError: the model folder can't be read, or the ready file can't be written.
        """
        with _reading_models():
            await self._repository.load_all()
        # Only now: workers that start would disturb models that are tried out, and the first answers need none.
        await self._lanes.start()
        await self._entrance.models_loaded()
        self._log.info("ready", port=self._port, metrics_port=self._metrics_port)
        if self._settings.look_seconds:
            self._watcher = asyncio.create_task(self._repository.watch(self._settings.look_seconds))
        if self._settings.ready_file is not None:
            self._write_ready_file(self._settings.ready_file)

    async def stop(self) -> bool:
        """Stop without losing a request that was accepted; false if that took longer than the grace period."""
        self._log.info("stopping")
        answered = await self._entrance.stop()
        for task in (self._sweeper, self._watcher):
            if task is not None:
                task.cancel()
        if self._migrator is not None:
            await self._migrator.stop()
        if self._scheduler is not None:
            self._scheduler.stop()
        clean = await self._lanes.stop(FLUSH_SECONDS) and answered
        await self._keeper.close()
        if self._mirror is not None:
            self._mirror.close()
        self._log.info("stopped", clean=clean)
        return clean

    def _open_metrics(self) -> int:
        """Answer scrapes of the metrics; returns the port, zero if there is to be none."""
        host, port = self._settings.metrics_host, self._settings.metrics_port
        if port < 0:
            return 0
        try:
            exporter, _ = start_http_server(port, host, self._metrics.registry)
        except OSError as error:
            raise ConfigurationError(
                f"metrics_port: can't listen on {host}:{port}: it is taken or not of this machine"
            ) from error
        return exporter.server_port

    def _write_ready_file(self, file: Path) -> None:
        ports = {"port": self._port, "metrics_port": self._metrics_port, "pid": os.getpid()}
        scratch = file.with_name(f".{file.name}.writing")
        try:
            scratch.write_text(json.dumps(ports))
            scratch.replace(file)  # whoever waits for the file never reads half of it
        except OSError as error:
            raise ConfigurationError(f"ready_file: can't write {file} ({error.strerror})") from error

    def _serving(self) -> LocalServing:
        settings = self._settings
        limits = OwnerLimits(
            settings.owner_requests_per_second, settings.owner_examples_per_second, settings.owner_queue_requests
        )
        self._scheduler = Scheduler(
            self._lanes,
            self._engine.lanes,
            BatchLimits(settings.max_batch_tasks or self._engine.largest_batch, settings.max_batch_bytes),
            QueueLimits(
                settings.max_queue_requests,
                settings.max_queue_bytes,
                settings.max_queue_seconds,
                limits.waiting,
            ),
            {
                Operation.ADAPT: settings.adapt_weight,
                Operation.EXTEND: settings.adapt_weight,
                Operation.LEAVE_OUT: settings.adapt_weight,
                Operation.PREDICT: settings.predict_weight,
            },
            self._metrics,
        )
        serving = LocalServing(
            self._repository, self._scheduler, self._keeper, self._metrics, RateLimits(limits), settings.migrate
        )
        self._migrator = serving.migrator
        self._repository.listen(serving.migrator)
        return serving

    def _store_changed(self, up: bool) -> None:
        """Tell callers, by the health service, whether the store answers."""
        telling = asyncio.get_running_loop().create_task(self._entrance.store_changed(up=up))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    async def _sweep_adaptations(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_INTERVAL)
            try:
                await self._keeper.sweep()
            except Exception:  # what is wrong with one adaptation must not keep the others from expiring
                self._log.exception("adaptations were not swept")


class _MetricsListener:
    """Shows the models' states in the metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def model_changed(self, model: ModelVersions) -> None:
        states = [
            (entry.description.version, entry.description.method, entry.state)
            if entry.description is not None
            else (entry.folder, "", entry.state)
            for entry in model.versions
        ]
        self._metrics.model(model.name, states)

    async def model_removed(self, name: str) -> None:
        self._metrics.model_gone(name)


@contextmanager
def metrics_folder(settings: ServerSettings) -> Iterator[Path | None]:
    """A folder for the metrics of front ends, if there are to be any."""
    if not settings.frontends:
        yield None
        return
    with TemporaryDirectory(prefix="innerloop-metrics-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextmanager
def _reading_models() -> Iterator[None]:
    """Say which folder can't be used, if that is why what is done inside fails."""
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"models: can't use {error.filename or 'the folder'} ({error.strerror})") from error


def _stop_signals() -> "asyncio.Queue[int]":
    """Receives every SIGTERM and SIGINT from now on."""
    loop = asyncio.get_running_loop()
    received: asyncio.Queue[int] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, received.put_nowait, number)
    return received

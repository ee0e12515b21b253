"""Keeps the front ends running."""

import asyncio
from pathlib import Path

import structlog

from innerloop_server.domain.model_versions import ModelVersions
from innerloop_server.frontend import messages
from innerloop_server.frontend.child import FrontEnd
from innerloop_server.frontend.port import SharedPort
from innerloop_server.observability.metrics import Metrics
from innerloop_server.serving.interface import Serving
from innerloop_server.settings import ConfigurationError, ServerSettings
from innerloop_server.transport.grpc.endpoint import FLUSH_SECONDS, LINGER_SECONDS

SHORTEST_WAIT, LONGEST_WAIT = 0.1, 10.0
"""Seconds before another attempt to replace a front end that ended before it listened; they double each time."""
STOP_SECONDS = 2.0
"""Seconds that a front end may take to stop, beyond those that its settings allow."""


class FrontEnds:
    """Front-end processes that share one port; each that ends is replaced.

    Listens to the model repository, to tell them what becomes of models.

    Args:
        settings: of the server.
        metrics: of the server.
        metrics_folder: where the front ends keep theirs.
    """

    def __init__(self, settings: ServerSettings, metrics: Metrics, metrics_folder: Path) -> None:
        self._settings = settings
        self._metrics = metrics
        self._metrics_folder = metrics_folder
        self._log = structlog.get_logger()
        self._port = SharedPort(settings.host, settings.port)
        self._models: dict[str, ModelVersions] = {}
        self._loaded = False
        self._store_up = True
        self._stopping = False
        self._answered = True
        self._front_ends: dict[int, FrontEnd] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, serving: Serving) -> int:
        """Start the front ends and wait until all of them listen; returns the port.

        Raises:
            ConfigurationError: they can't start.
        """
        loop = asyncio.get_running_loop()
        started: list[asyncio.Future[None]] = [loop.create_future() for _ in range(self._settings.frontends)]
        self._tasks = [
            asyncio.create_task(self._keep_running(serving, slot, first)) for slot, first in enumerate(started)
        ]
        await asyncio.gather(*started)
        return self._port.port

    async def model_changed(self, model: ModelVersions) -> None:
        """See ModelListener."""
        self._models[model.name] = model
        self._tell(messages.ModelChanged(model))

    async def model_removed(self, name: str) -> None:
        """See ModelListener."""
        self._models.pop(name, None)
        self._tell(messages.ModelRemoved(name))

    async def models_loaded(self) -> None:
        """Every model of the folder was loaded or refused."""
        self._loaded = True
        self._tell(messages.ModelsLoaded())

    async def store_changed(self, *, up: bool) -> None:
        """The store of adaptations went away or came back."""
        self._store_up = up
        self._tell(messages.StoreChanged(up))

    async def stop(self) -> bool:
        """Let the front ends stop without losing a request that was accepted, and wait until they have.

        Returns:
            whether every request was answered before the grace period ended.
        """
        self._stopping = True
        self._tell(messages.Stop())
        for slot, task in enumerate(self._tasks):
            front_end = self._front_ends.get(slot)
            if front_end is None or not front_end.listens:
                task.cancel()
        settings = self._settings
        seconds = settings.drain_seconds + settings.grace_seconds + LINGER_SECONDS + FLUSH_SECONDS + STOP_SECONDS
        _, late = await asyncio.wait(self._tasks, timeout=seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._port.close()
        return self._answered and not late

    async def _keep_running(self, serving: Serving, slot: int, started: "asyncio.Future[None]") -> None:
        """Run one front end after another, unless not even the first one gets as far as listening.

        Args:
            serving: computes for them.
            slot: their number.
            started: told when the first one listens, or why it can't.
        """
        wait = SHORTEST_WAIT
        while True:
            front_end, code, reason = None, 0, "frontends: can't start one"
            try:
                front_end = self._front_ends[slot] = FrontEnd(
                    serving, self._settings.frontend_bytes, lambda: self._listening(started)
                )
                code = await front_end.run(lambda: self._start_message(slot))
                reason = front_end.refused or f"frontends: one ended with code {code}"
            except Exception:
                self._log.exception("front end failed", slot=slot)
            self._count()
            if self._stopping:
                self._answered &= code == 0
                return
            if not started.done():
                started.set_exception(ConfigurationError(reason))
                return
            self._log.warning("replacing a front end", slot=slot, reason=reason)
            self._metrics.frontend_restarted()
            if front_end is not None and front_end.has_listened:
                wait = SHORTEST_WAIT
            else:
                await asyncio.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT)

    def _start_message(self, slot: int) -> messages.Start:
        # Reading settings checks that their files exist. Files that a front end does not need may be gone when it
        # replaces another.
        unneeded = {"models": "/", "ready_file": None, "require_signed": None}
        settings = self._settings.model_copy(update={"port": self._port.port, **unneeded})
        return messages.Start(
            settings.model_dump_json(),
            slot,
            str(self._metrics_folder),
            tuple(self._models.values()),
            self._loaded,
            self._store_up,
        )

    def _listening(self, started: "asyncio.Future[None]") -> None:
        if not started.done():
            started.set_result(None)
        self._count()

    def _count(self) -> None:
        self._metrics.frontends(sum(front_end.listens for front_end in self._front_ends.values()))

    def _tell(self, message: messages.ToFrontEnd) -> None:
        for front_end in self._front_ends.values():
            front_end.send(message)

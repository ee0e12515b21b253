"""Finds bundles in the model folder, loads and unloads them, and knows which can serve."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import structlog

from innerloop_server.domain.errors import ModelLoadingError, ModelNotFoundError
from innerloop_server.domain.models import LOADING_RETRY_SECONDS, ModelEntry, ModelState
from innerloop_server.engine.interface import Engine, LoadedModel, LoadError

MANIFEST = "manifest.json"


class ModelListener(Protocol):
    """Is told what becomes of models."""

    async def model_changed(self, entry: ModelEntry) -> None:
        """A model began to load, is ready, or failed."""

    async def model_removed(self, entry: ModelEntry) -> None:
        """A model was unloaded."""


class ModelRepository:
    """The models of one folder.

    Args:
        folder: holds one bundle per sub-folder, named as the model, or is itself a bundle.
        engine: loads bundles.
        call_on_lane: calls a function where the engine computes.
        listeners: told about every change.
        load_seconds: longest that reading one bundle may take.
    """

    def __init__(
        self,
        folder: Path,
        engine: Engine,
        call_on_lane: Callable[[Callable[[], None]], Awaitable[None]],
        listeners: list[ModelListener],
        load_seconds: float = 600.0,
    ) -> None:
        self._folder = folder
        self._engine = engine
        self._call_on_lane = call_on_lane
        self._listeners = listeners
        self._load_seconds = load_seconds
        self._entries: dict[str, ModelEntry] = {}
        self._models: dict[str, LoadedModel] = {}  # those whose entry is ready
        self._loads: dict[str, asyncio.Task[ModelEntry]] = {}
        # One bundle is loaded at a time: the disk is the limit, and models that serve should not starve.
        self._one_at_a_time = asyncio.Lock()
        self._loader = _new_loader()
        self._compiler = ThreadPoolExecutor(1, thread_name_prefix="compiler")
        self._compilations: set[asyncio.Future[None]] = set()
        self._log = structlog.get_logger()

    def get(self, name: str) -> LoadedModel:
        """The model of that name, ready to serve.

        Raises:
            ModelNotFoundError, ModelLoadingError, ModelFailedError: it can't serve.
        """
        model = self._models.get(name)
        if model is None:
            raise self.entry(name).unavailable
        return model

    def find(self, name: str) -> LoadedModel | None:
        """The model of that name if it is ready to serve."""
        return self._models.get(name)

    def entry(self, name: str) -> ModelEntry:
        """The description and state of a model.

        Raises:
            ModelNotFoundError: nothing.
        """
        if name not in self._entries:
            raise ModelNotFoundError(name)
        return self._entries[name]

    def entries(self) -> list[ModelEntry]:
        """All models by name, whatever their state."""
        return [self._entries[name] for name in sorted(self._entries)]

    def serves(self, model: LoadedModel) -> bool:
        """Whether this very model has not been unloaded."""
        return self._models.get(model.name) is model

    async def announce(self) -> None:
        """Say of every bundle of the folder that it is loading, so that nobody is told that there is no such model.

        Raises:
            OSError: the folder can't be read.
        """
        for name in sorted(self._bundles()):
            await self._set(ModelEntry(name, ModelState.LOADING))

    async def load_all(self) -> None:
        """Load every bundle of the folder; one that is refused does not keep the others from serving.

        Raises:
            OSError: the folder can't be read.
        """
        bundles = self._bundles()
        if not bundles:
            self._log.warning("the model folder holds no bundles", folder=str(self._folder))
        await asyncio.gather(*(self._start_loading(name, path) for name, path in sorted(bundles.items())))

    async def load(self, name: str) -> LoadedModel:
        """Load one bundle of the folder, unless it is loaded already.

        Raises:
            ModelNotFoundError: the folder has no such sub-folder.
            ModelFailedError: the bundle was refused.
        """
        if name not in self._models:
            # The name is looked up among the folder's own entries, so that it can't lead anywhere else.
            path = self._bundles().get(name)
            if path is None:
                raise ModelNotFoundError(name)
            await asyncio.shield(self._start_loading(name, path))
        return self.get(name)

    async def unload(self, name: str) -> None:
        """Forget a model. What is being computed with it ends well, then its memory is free.

        Raises:
            ModelNotFoundError, ModelLoadingError: there is nothing to unload, or not yet.
        """
        entry = self.entry(name)
        if entry.state is ModelState.LOADING:
            raise ModelLoadingError(name, LOADING_RETRY_SECONDS)
        del self._entries[name]
        self._models.pop(name, None)
        self._log.info("model unloaded", model=name)
        for listener in self._listeners:
            await listener.model_removed(entry)

    def _bundles(self) -> dict[str, Path]:
        if (self._folder / MANIFEST).is_file():
            folder = self._folder.resolve()  # the resolved folder's name is the model's
            return {folder.name: folder}
        # Hidden folders are bundles that are still being written.
        found = {path.name: path for path in self._folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
        # A name that is no text can stand in no message.
        return {name: path for name, path in found.items() if name.isprintable()}

    def _start_loading(self, name: str, path: Path) -> "asyncio.Task[ModelEntry]":
        """The load of that name that is under way, or a new one."""
        if name not in self._loads:
            self._loads[name] = asyncio.create_task(self._load(name, path))
            self._loads[name].add_done_callback(lambda _: self._loads.pop(name))
        return self._loads[name]

    async def _load(self, name: str, path: Path) -> ModelEntry:
        await self._set(ModelEntry(name, ModelState.LOADING))
        try:
            async with self._one_at_a_time:
                loaded = await self._read(name, path)
            await self._call_on_lane(loaded.prepare)
        except LoadError as error:
            cause = repr(error.__cause__) if error.__cause__ else ""
            self._log.error("bundle refused", model=name, reason=str(error), cause=cause)
            entry = ModelEntry(name, ModelState.FAILED, error=str(error))
        except Exception:
            self._log.exception("bundle could not be loaded", model=name)
            reason = f"{name}: could not be loaded; the server's operator finds the cause in its log"
            entry = ModelEntry(name, ModelState.FAILED, error=reason)
        else:
            description = loaded.description
            self._log.info("model ready", model=name, version=description.version, method=description.method)
            self._models[name] = loaded
            entry = ModelEntry(name, ModelState.READY, description)
            if self._engine.compiles:
                self._start_compiling(name, loaded)
        await self._set(entry)
        return entry

    async def _read(self, name: str, path: Path) -> LoadedModel:
        """Load a bundle on the loader's thread, which is replaced if that takes too long.

        Raises:
            LoadError: the bundle is refused, or took too long.
        """
        loading = asyncio.get_running_loop().run_in_executor(self._loader, self._engine.load, name, path)
        try:
            return await asyncio.wait_for(loading, self._load_seconds)
        except TimeoutError as error:
            self._loader.shutdown(wait=False)  # its thread may hang in the file system for good
            self._loader = _new_loader()
            raise LoadError(f"{name}: reading it took longer than {self._load_seconds:g} s") from error

    def _start_compiling(self, name: str, loaded: LoadedModel) -> None:
        """Compile a model that serves already; if that fails, it goes on serving uncompiled."""

        def compiled(compilation: "asyncio.Future[None]") -> None:
            self._compilations.discard(compilation)
            if compilation.exception() is None:
                self._log.info("model compiled", model=name)
            else:
                self._log.warning("model could not be compiled", model=name, reason=str(compilation.exception()))

        compilation = asyncio.get_running_loop().run_in_executor(self._compiler, loaded.compile)
        self._compilations.add(compilation)
        compilation.add_done_callback(compiled)

    async def _set(self, entry: ModelEntry) -> None:
        self._entries[entry.name] = entry
        for listener in self._listeners:
            await listener.model_changed(entry)


def _new_loader() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="loader")

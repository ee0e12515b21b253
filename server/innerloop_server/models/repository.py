"""Finds bundles in the model folder, loads and unloads them, and knows which version of a model serves."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import structlog

from innerloop_learner.signatures import KeyFileError, read_trusted_keys
from innerloop_server.domain.errors import (
    FieldViolation,
    InvalidRequestError,
    ModelFailedError,
    ModelLoadingError,
    ModelNotFoundError,
    ModelRetiredError,
)
from innerloop_server.domain.model_versions import (
    SEPARATOR,
    Alias,
    ModelVersions,
    WantedAlias,
    age,
    find_version,
    settle,
    split_reference,
)
from innerloop_server.domain.models import LOADING_RETRY_SECONDS, ModelEntry, ModelState
from innerloop_server.engine.interface import Engine, LoadedModel, LoadError
from innerloop_server.models.aliases import AliasesError, check_alias, edit_aliases, parse_aliases, write_aliases
from innerloop_server.models.folder import ALIASES, Expect, FoundBundle, FoundModel, Place, Refresh, find_models


class Key(NamedTuple):
    """Names a version: its model, and its folder, which is empty where the model's folder is a bundle itself."""

    name: str
    folder: str


@dataclass(slots=True)
class _Version:
    """A version that is known: its entry, and what its bundle was when it was last loaded, or tried."""

    entry: ModelEntry
    model: LoadedModel | None = None
    tried: FoundBundle | None = None


@dataclass(slots=True)
class _Aliases:
    """The aliases of a model: the file's content, what it asks for, and where they point."""

    content: str = ""
    wanted: Mapping[str, WantedAlias] = field(default_factory=dict)
    settled: tuple[Alias, ...] = ()


class ModelListener(Protocol):
    """Is told what becomes of models."""

    async def model_changed(self, model: ModelVersions) -> None:
        """A version of a model began to load, is ready, failed or was unloaded, or an alias points elsewhere."""

    async def model_removed(self, name: str) -> None:
        """The last version of a model was unloaded."""


class ModelRepository:
    """The models of one folder.

    Args:
        folder: holds a folder for each model, named as it is: a bundle, or one bundle for each version. Or it is itself
            a bundle.
        engine: loads bundles.
        call_on_lane: calls a function where the engine computes.
        listeners: told about every change.
        load_seconds: longest that reading one bundle may take.
        keys_file: file of public keys, of which one must have signed a bundle that is loaded; None if anybody's will
            do. It is read anew for each bundle, so that keys can be exchanged while the server runs.
        refresh: brings the folder to where models come from, before it is looked at; None if the folder is the origin.

    Attributes:
        on_retired: is given each loaded model that does not serve any more, to free what was kept for it.
        on_failure: is given the name of a model of which a bundle was refused.
    """

    def __init__(
        self,
        folder: Path,
        engine: Engine,
        call_on_lane: Callable[[Callable[[], None]], Awaitable[None]],
        listeners: list[ModelListener],
        load_seconds: float = 600.0,
        keys_file: Path | None = None,
        refresh: Refresh | None = None,
    ) -> None:
        self._folder = folder
        self._engine = engine
        self._call_on_lane = call_on_lane
        self._listeners = list(listeners)
        self._load_seconds = load_seconds
        self._keys_file = keys_file
        self._refresh = refresh
        self._withheld: dict[Key, str] = {}  # why bundles were not brought to the folder, as of the last refresh
        self._versions: dict[Key, _Version] = {}
        self._aliases: dict[str, _Aliases] = {}
        self._models: dict[str, ModelVersions] = {}
        self._loads: dict[Key, asyncio.Task[None]] = {}
        self._seen: dict[Key, FoundBundle] = {}  # by the watch, the last time
        self._unloaded: dict[Key, FoundBundle | None] = {}  # by an operator, and what they were then
        # One bundle is loaded at a time: the disk is the limit, and models that serve should not starve.
        self._one_at_a_time = asyncio.Lock()
        self._loader = _new_loader()
        self._compiler = ThreadPoolExecutor(1, thread_name_prefix="compiler")
        self._compilations: set[asyncio.Future[None]] = set()
        self._log = structlog.get_logger()
        self.on_retired: Callable[[LoadedModel], Awaitable[None]] | None = None
        self.on_failure: Callable[[str], None] | None = None

    def listen(self, listener: ModelListener) -> None:
        """Tell another listener about every change from now on."""
        self._listeners.append(listener)

    def get(self, reference: str, account: str = "") -> LoadedModel:
        """The model, ready to serve, that a name, or a name and a version, means for an account.

        Raises:
            ModelNotFoundError, ModelLoadingError, ModelFailedError: it can't serve.
        """
        name, selector = split_reference(reference)
        return self._loaded(self.versions(name).select(selector, account))

    def made_by(self, name: str, digest: str) -> LoadedModel:
        """The version of a model that has a digest.

        Raises:
            ModelRetiredError: other versions serve.
            ModelNotFoundError, ModelLoadingError, ModelFailedError: none serves, or not yet.
        """
        entries = self.versions(name).versions
        found = find_version(entries, digest)
        if found is not None:
            return self._loaded(found)
        if any(entry.state is ModelState.LOADING for entry in entries):
            raise ModelLoadingError(name, LOADING_RETRY_SECONDS)
        self._loaded(self.versions(name).stable)
        raise ModelRetiredError(name)

    def versions(self, name: str) -> ModelVersions:
        """A model, whatever the state of its versions.

        Raises:
            ModelNotFoundError: there is none of that name.
        """
        if name not in self._models:
            raise ModelNotFoundError(name)
        return self._models[name]

    def entries(self) -> list[ModelVersions]:
        """All models by name, whatever their state."""
        return [self._models[name] for name in sorted(self._models)]

    def serves(self, model: LoadedModel) -> bool:
        """Whether this very model has been neither unloaded nor replaced."""
        versions = self._models.get(model.name)
        return versions is not None and any(
            version.model is model for key, version in self._versions.items() if key.name == model.name
        )

    def check_serves(self, model: LoadedModel) -> None:
        """Refuse to go on with a model that was unloaded or replaced meanwhile.

        Raises:
            ModelNotFoundError: no version of it is left.
            ModelLoadingError: another version may serve, if the caller tries again.
        """
        if not self.serves(model):
            self.versions(model.name)
            raise ModelLoadingError(model.name, LOADING_RETRY_SECONDS)

    async def announce(self) -> None:
        """Say of every bundle of the folder that it is loading, so that nobody is told that there is no such model.

        Raises:
            OSError: the folder can't be read.
        """
        for name, found in sorted(find_models(self._folder).items()):
            self._read_aliases(name, found)
            for folder in found.bundles:
                self._versions[Key(name, folder)] = _Version(ModelEntry(name, ModelState.LOADING, folder=folder))
            await self._tell(name)

    async def load_all(self) -> None:
        """Load every bundle of the folder; one that is refused does not keep the others from serving.

        Raises:
            OSError: the folder can't be read.
        """
        await self._refreshed(self._expect)
        models = find_models(self._folder)
        if not models:
            self._log.warning("the model folder holds no bundles", folder=str(self._folder))
        bundles = {}
        for name, found in sorted(models.items()):
            self._read_aliases(name, found)
            # The newest first: it is the one that most requests will ask for.
            for folder in sorted(found.bundles, key=age, reverse=True):
                bundles[Key(name, folder)] = found.bundles[folder]
        for key, version in list(self._versions.items()):
            if version.entry.state is ModelState.LOADING and key not in bundles and key not in self._loads:
                del self._versions[key]  # it was expected, and did not come or went
                await self._tell(key.name)
        await self._load_each(bundles)

    async def load(self, reference: str) -> LoadedModel:
        """Load a version of a model, or all of them, unless they are loaded already, and read its aliases.

        What was refused is tried again, since the trusted keys may be others now.

        Raises:
            ModelNotFoundError: the folder has no such bundle.
            ModelFailedError: the bundle was refused; what served before goes on.
        """
        name, selector = split_reference(reference)
        await self._refreshed()
        # The name is looked up among the folder's own entries, so that it can't lead anywhere else.
        found = (await asyncio.to_thread(find_models, self._folder)).get(name)
        present = {} if found is None else found.bundles
        if found is not None:
            self._read_aliases(name, found)
        known = {*present, *(key.folder for key in self._withheld if key.name == name)}
        wanted = sorted(known, key=age, reverse=True)
        if selector and selector in known:
            wanted = [selector]
        elif selector:
            wanted = [folder for folder in [self.versions(name).select(selector, "").folder] if folder in known]
        if not wanted:
            raise ModelNotFoundError(reference)
        bundles = {Key(name, folder): present[folder] for folder in wanted if folder in present}
        await self._load_each(
            {
                key: bundle
                for key, bundle in bundles.items()
                if self._changed(key, bundle) or self._versions[key].entry.error
            }
        )
        await self._tell_if_changed(name)
        for key in (Key(name, folder) for folder in wanted):
            version = self._versions.get(key)  # None if it was unloaded again meanwhile
            if error := self._withheld.get(key) or (version.entry.error if version else ""):
                raise ModelFailedError(_label(key), error)
        return self.get(reference)

    async def unload(self, reference: str) -> None:
        """Forget a version of a model, or all of them. What is being computed ends well, then their memory is free.

        Raises:
            ModelNotFoundError, ModelLoadingError: there is nothing to unload, or not yet.
        """
        name, selector = split_reference(reference)
        versions = self.versions(name)
        entries = [versions.select(selector, "")] if selector else versions.versions
        if any(entry.state is ModelState.LOADING for entry in entries):
            raise ModelLoadingError(name, LOADING_RETRY_SECONDS)
        keys = [key for key in (Key(name, entry.folder) for entry in entries) if key in self._versions]
        if not keys:
            raise ModelNotFoundError(reference)
        self._unloaded.update((key, self._versions[key].tried) for key in keys)
        await self._forget(keys)

    async def set_alias(self, name: str, alias: str, wanted: WantedAlias | None) -> None:
        """Have an alias point to a version, or take it away; the model's folder keeps it.

        Args:
            name: of the model.
            alias: its name.
            wanted: where it shall point; None to take it away.

        Raises:
            ModelNotFoundError: there is no such model or version.
            InvalidRequestError: the alias makes no sense, or the file can't be changed.
        """
        versions = self.versions(name)
        if self._refresh is not None:
            raise _refused("alias", f"models come from a store, which the server only reads; change {ALIASES} there")
        found = (await asyncio.to_thread(find_models, self._folder)).get(name)
        if found is None or "" in found.bundles:
            raise _refused("model", f"{name} has no versions side by side, which aliases could point to")
        if wanted is not None and find_version(versions.versions, wanted.version) is None:
            raise ModelNotFoundError(f"{name}{SEPARATOR}{wanted.version}")
        try:
            if wanted is not None:
                check_alias(alias, wanted)
            content = edit_aliases(found.aliases, alias, wanted)
            self._check_names(found, {alias: wanted} if wanted else {})
            await asyncio.to_thread(write_aliases, found.path / ALIASES, content)
        except AliasesError as error:
            raise _refused("alias", str(error)) from error
        except OSError as error:
            raise _refused("alias", f"the file of aliases can't be written ({error.strerror})") from error
        self._read_aliases(name, found._replace(aliases=content))
        await self._tell_if_changed(name)

    async def watch(self, seconds: float) -> None:
        """Look at the folder again and again, and follow what changes there, until cancelled."""
        unreadable = False
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.look()
                unreadable = False
            except OSError as error:
                if not unreadable:
                    self._log.error("the model folder can't be read", reason=error.strerror)
                unreadable = True
            except Exception:  # what is wrong with one look must not end all later ones
                self._log.exception("the models were not looked at")

    async def look(self) -> None:
        """Load bundles that are new or replaced, unload those that are gone, and read aliases.

        A bundle is loaded once two looks have found the same files, since it may be half written. What is gone is
        unloaded once two looks have missed it; nothing is if there is no bundle at all, as when a disk is not mounted.

        Raises:
            OSError: the folder can't be read.
        """
        await self._refreshed()
        models = await asyncio.to_thread(find_models, self._folder)
        found = {Key(name, folder): each for name, model in models.items() for folder, each in model.bundles.items()}
        before, self._seen = self._seen, found
        settled = {key: bundle for key, bundle in found.items() if before.get(key) == bundle}
        for name, model in models.items():
            self._read_aliases(name, model)
        await self._load_each(
            {
                key: settled[key]
                for key in sorted(settled, key=lambda key: (key.name, age(key.folder)), reverse=True)
                if self._changed(key, settled[key]) and self._unloaded.get(key) != settled[key]
            }
        )
        if found:
            gone = [key for key in self._versions if key not in found and key not in before and key not in self._loads]
            for name in {key.name for key in gone}:
                await self._forget([key for key in gone if key.name == name])
        for name in list(self._models):
            await self._tell_if_changed(name)

    async def _expect(self, places: Collection[Place]) -> None:
        """Say of bundles that they are loading."""
        new = [key for key in (Key(*place) for place in places) if key not in self._versions]
        for key in new:
            self._versions[key] = _Version(ModelEntry(key.name, ModelState.LOADING, folder=key.folder))
        for name in {key.name for key in new}:
            await self._tell(name)

    async def _refreshed(self, expect: Expect | None = None) -> None:
        """Have the folder brought to where models come from, and tell what could not be."""
        if self._refresh is None:
            return
        before, withheld = self._withheld, {Key(*place): why for place, why in (await self._refresh(expect)).items()}
        self._withheld = {key: f"{_label(key)}: {why}" for key, why in withheld.items()}
        for name in sorted({key.name for key in (*before, *withheld)}):
            await self._tell_if_changed(name)

    def _loaded(self, entry: ModelEntry) -> LoadedModel:
        version = self._versions.get(Key(entry.name, entry.folder))
        if version is None or version.model is None or entry.state is not ModelState.READY:
            raise entry.unavailable
        return version.model

    def _changed(self, key: Key, bundle: FoundBundle) -> bool:
        """Whether a bundle is not the one that serves."""
        known = self._versions.get(key)
        return known is None or known.model is None or known.tried != bundle

    async def _load_each(self, bundles: Mapping[Key, FoundBundle]) -> None:
        """Load bundles, joining loads that are under way."""
        await asyncio.gather(*(asyncio.shield(self._start_loading(*each)) for each in bundles.items()))

    async def _forget(self, keys: Iterable[Key]) -> None:
        """Let versions of one model go."""
        forgotten = [(key, self._versions.pop(key)) for key in keys]
        name = forgotten[0][0].name
        for key, _ in forgotten:
            self._log.info("model unloaded", model=name, folder=key.folder)
        try:
            await self._tell(name)
        finally:  # a caller that leaves meanwhile must not leave states of an unloaded model behind
            for _, version in forgotten:
                await self._retire(version.model)

    def _start_loading(self, key: Key, bundle: FoundBundle) -> "asyncio.Task[None]":
        """The load of that version that is under way, or a new one."""
        if key not in self._loads:
            self._unloaded.pop(key, None)
            self._loads[key] = asyncio.create_task(self._load(key, bundle))
            self._loads[key].add_done_callback(lambda _: self._loads.pop(key))
        return self._loads[key]

    async def _load(self, key: Key, bundle: FoundBundle) -> None:
        """Load a bundle, and let it take the place of the one before it once it can serve."""
        name, label = key.name, _label(key)
        version = self._versions.setdefault(key, _Version(ModelEntry(name, ModelState.LOADING, folder=key.folder)))
        version.tried = bundle
        if version.model is None:
            version.entry = ModelEntry(name, ModelState.LOADING, folder=key.folder)
            await self._tell(name)
        replaced = None
        try:
            async with self._one_at_a_time:
                loaded = await self._read(name, bundle.path)
            await self._call_on_lane(loaded.prepare)
        except LoadError as error:
            cause = repr(error.__cause__) if error.__cause__ else ""
            self._log.error("bundle refused", model=label, reason=str(error), cause=cause)
            self._refuse(version, str(error))
        except Exception:
            self._log.exception("bundle could not be loaded", model=label)
            self._refuse(version, f"{label}: could not be loaded; the server's operator finds the cause in its log")
        else:
            description = loaded.description
            self._log.info("model ready", model=label, version=description.version, method=description.method)
            if version.entry.digest != description.digest:
                replaced, version.model = version.model, loaded
                if self._engine.compiles:
                    self._start_compiling(label, loaded)
            version.entry = ModelEntry(name, ModelState.READY, description, folder=key.folder)
        await self._tell(name)
        await self._retire(replaced)

    async def _read(self, name: str, path: Path) -> LoadedModel:
        """Load a bundle on the loader's thread, which is replaced if that takes too long.

        Raises:
            LoadError: the bundle is refused, or took too long.
        """
        loading = asyncio.get_running_loop().run_in_executor(self._loader, self._open, name, path)
        try:
            return await asyncio.wait_for(loading, self._load_seconds)
        except TimeoutError as error:
            self._loader.shutdown(wait=False)  # its thread may hang in the file system for good
            self._loader = _new_loader()
            raise LoadError(f"{name}: reading it took longer than {self._load_seconds:g} s") from error

    def _open(self, name: str, path: Path) -> LoadedModel:
        """Load a bundle, if it is signed as it must be.

        Raises:
            LoadError: the bundle is refused, or the trusted keys can't be read.
        """
        try:
            keys = None if self._keys_file is None else read_trusted_keys(self._keys_file)
        except KeyFileError as error:
            raise LoadError(f"{name}: can't be checked, since the server's trusted keys can't be read") from error
        return self._engine.load(name, path, keys)

    def _refuse(self, version: _Version, reason: str) -> None:
        """Note why a bundle was refused; the one before it goes on serving."""
        state = ModelState.FAILED if version.model is None else ModelState.READY
        version.entry = replace(version.entry, state=state, error=reason)
        if self.on_failure is not None:
            self.on_failure(version.entry.name)

    async def _retire(self, model: LoadedModel | None) -> None:
        if model is not None and self.on_retired is not None:
            await self.on_retired(model)

    def _start_compiling(self, label: str, loaded: LoadedModel) -> None:
        """Compile a model that serves already; if that fails, it goes on serving uncompiled."""

        def compiled(compilation: "asyncio.Future[None]") -> None:
            self._compilations.discard(compilation)
            if compilation.exception() is None:
                self._log.info("model compiled", model=label)
            else:
                self._log.warning("model could not be compiled", model=label, reason=str(compilation.exception()))

        compilation = asyncio.get_running_loop().run_in_executor(self._compiler, loaded.compile)
        self._compilations.add(compilation)
        compilation.add_done_callback(compiled)

    def _read_aliases(self, name: str, found: FoundModel) -> None:
        """Take over what a model's file of aliases says; if it makes no sense, the aliases stay as they are."""
        known = self._aliases.setdefault(name, _Aliases())
        if known.content == found.aliases:
            return
        known.content = found.aliases
        try:
            wanted = parse_aliases(found.aliases)
            self._check_names(found, wanted)
        except AliasesError as error:
            self._log.error("aliases not used", model=name, file=ALIASES, reason=str(error))
        else:
            known.wanted = wanted

    def _check_names(self, found: FoundModel, wanted: Mapping[str, WantedAlias]) -> None:
        """Refuse aliases that are called like versions. Raises AliasesError."""
        for alias in wanted:
            if alias in found.bundles:
                raise AliasesError(f"{alias} is the folder of a version; give the alias another name")

    def _describe(self, name: str) -> ModelVersions | None:
        """A model as it is now; None if no version is known."""
        found = {key: version.entry for key, version in self._versions.items() if key.name == name}
        for key, reason in self._withheld.items():
            if key.name == name:
                entry = found.get(key, ModelEntry(name, ModelState.FAILED, folder=key.folder))
                found[key] = replace(entry, error=reason)
        entries = sorted(found.values(), key=lambda entry: age(entry.folder))
        if not entries:
            return None
        aliases = self._aliases.setdefault(name, _Aliases())
        aliases.settled = settle(aliases.wanted, entries, aliases.settled)
        return ModelVersions(name, tuple(entries), aliases.settled)

    async def _tell_if_changed(self, name: str) -> None:
        if self._describe(name) != self._models.get(name):
            await self._tell(name)

    async def _tell(self, name: str) -> None:
        """Tell listeners of a model that changed."""
        model, before = self._describe(name), self._models.pop(name, None)
        if model is None:
            self._aliases.pop(name, None)
        else:
            self._models[name] = model
            for alias in model.aliases:
                if before is None or before.alias(alias.name) != alias:
                    self._log.info("alias set", model=name, alias=alias.name, version=alias.version, waits=alias.wanted)
        for listener in self._listeners:
            latest = self._models.get(name)  # it may have changed again while another listener was told
            if latest is None:
                await listener.model_removed(name)
            else:
                await listener.model_changed(latest)


def _new_loader() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="loader")


def _label(key: Key) -> str:
    """The name of a version in logs and errors."""
    return f"{key.name}{SEPARATOR}{key.folder}" if key.folder else key.name


def _refused(what: str, why: str) -> InvalidRequestError:
    return InvalidRequestError([FieldViolation(what, why)])

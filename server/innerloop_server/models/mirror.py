"""Keeps a model folder on disk that follows an object store.

    bundles/KEY/            what was downloaded, by what the store says of its files
    models/NAME             the model folder that the repository serves: links to bundles,
    models/NAME/VERSION     for each version, and files of aliases

A bundle is downloaded under another name and checked by the digests of its manifest before a link leads to it, and a
link moves from one bundle to the next at once. So whoever reads the model folder finds whole bundles only.
"""

import asyncio
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from time import monotonic, perf_counter
from typing import NamedTuple, TypeVar

import structlog

from innerloop_learner.disk import sync_folder
from innerloop_learner.manifest import MANIFEST, MOST_FILE_BYTES, MOST_MANIFEST_BYTES, BundleError, read_manifest
from innerloop_learner.signatures import MOST_SIGNATURE_BYTES, SIGNATURE
from innerloop_server.models.aliases import write_aliases
from innerloop_server.models.folder import ALIASES, LARGEST_ALIASES, Expect, Place
from innerloop_server.models.object_store import (
    ObjectStore,
    ObjectStoreError,
    RemoteBundle,
    RemoteFile,
    RemoteModel,
)

LISTING_SECONDS = 30.0
"""Longest that a store may take to say what lies in it. Without an answer, what was downloaded before is served."""

AWAY = "models not looked up; serving what was downloaded before"
"""What the log says while the store can't be asked."""

REFUSED_SECONDS = 600.0
"""How long a bundle that was damaged is not downloaded again while the store says that it is the same. It may have been
read while it was written, or from a copy that was behind."""

Result = TypeVar("Result")


class _Refusal(NamedTuple):
    """Why a bundle was refused, and until when (by the monotonic clock) it is not downloaded again."""

    reason: str
    until: float


class Mirror:
    """A model folder that follows a store.

    Args:
        store: where the models come from.
        folder: where bundles are kept; one server uses it at a time.
        most_bytes: most bytes of bundles on disk, those included that are about to be replaced.
        download_seconds: longest that downloading one bundle may take.

    Attributes:
        models: the model folder.
    """

    def __init__(self, store: ObjectStore, folder: Path, most_bytes: int, download_seconds: float = 600.0) -> None:
        self.models = folder / "models"
        self._store = store
        self._folder = folder
        self._bundles = folder / "bundles"
        self._most_bytes = most_bytes
        self._download_seconds = download_seconds
        self._lock_file: int | None = None
        self._aliases: dict[str, RemoteFile] = {}  # as they were when they were read
        self._refused: dict[str, _Refusal] = {}  # by the keys of bundles: they are not downloaded again for now
        self._withheld: dict[Place, str] = {}  # why bundles were not brought to the model folder
        self._said: dict[str, str] = {}  # what the log was last told of a bundle, or of the store (an empty name)
        self._one_at_a_time = asyncio.Lock()
        self._refreshes: set[asyncio.Task[Mapping[Place, str]]] = set()
        self._thread = _new_thread()
        self._log = structlog.get_logger()

    def open(self) -> None:
        """Make the folders, and keep other servers out of them.

        Raises:
            OSError: they can't be written, or another server uses them.
        """
        for path in (self.models, self._bundles):
            path.mkdir(parents=True, exist_ok=True)
        self._lock_file = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise OSError(error.errno, "another server uses it") from error

    def close(self) -> None:
        """Let other servers use the folders."""
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    async def refresh(self, expect: Expect | None = None) -> Mapping[Place, str]:
        """Download what is new or changed, and take away what is gone.

        What can't be had now stays as it is, and is tried again the next time; the log says why. A store in which there
        is nothing at all is taken for one that was not found.

        Args:
            expect: told which bundles the store has, before any of them is downloaded.

        Returns:
            why bundles of the store are not in the model folder.
        """
        # A caller that leaves does not end a download that others want, too.
        refreshing = asyncio.create_task(self._refresh(expect))
        self._refreshes.add(refreshing)
        refreshing.add_done_callback(self._refreshes.discard)
        return await asyncio.shield(refreshing)

    async def _refresh(self, expect: Expect | None) -> Mapping[Place, str]:
        async with self._one_at_a_time:
            try:
                models = await self._call(self._store.find_models, LISTING_SECONDS)
            except ObjectStoreError as error:
                self._say("", AWAY, str(error))
                return self._withheld
            if not models:
                self._say("", AWAY, "the store holds no bundles")
                return self._withheld
            if self._said.pop("", None):
                self._log.info("models looked up again", store=self._store.shown)
            if expect is not None:
                await expect([(name, folder) for name, model in models.items() for folder in model.bundles])
            self._withheld = {}
            await self._follow(models)
            return self._withheld

    async def _follow(self, models: Mapping[str, RemoteModel]) -> None:
        """Bring the model folder to where the store is."""
        bundles = {(name, folder): each for name, model in models.items() for folder, each in model.bundles.items()}
        keys, now = {bundle.key for bundle in bundles.values()}, monotonic()
        self._refused = {key: each for key, each in self._refused.items() if key in keys and now < each.until}
        with self._complaining(""):
            await self._call(partial(self._remove_gone, {_link(*place) for place in bundles}))
        for place, bundle in bundles.items():
            with self._complaining(_link(*place), place):
                await self._fetch(_link(*place), bundle)
        for name, model in models.items():
            with self._complaining(f"{name}/{ALIASES}"):
                await self._call(partial(self._follow_aliases, name, model.aliases))
                self._said.pop(f"{name}/{ALIASES}", None)
        with self._complaining(""):
            await self._call(self._remove_unused)

    async def _fetch(self, label: str, bundle: RemoteBundle) -> None:
        """Have a link lead to a bundle, which is downloaded unless it lies there already."""
        place = self._bundles / bundle.key
        if bundle.key in self._refused:
            raise BundleError(self._refused[bundle.key].reason)
        if not place.is_dir():
            started = perf_counter()
            try:
                scratch = await self._call(partial(self._download, bundle), self._download_seconds)
            except BundleError as error:
                self._refused[bundle.key] = _Refusal(str(error), monotonic() + REFUSED_SECONDS)
                raise
            await self._call(partial(scratch.rename, place))
            self._log.info("bundle downloaded", bundle=label, seconds=round(perf_counter() - started, 3))
        await self._call(partial(self._point, self.models / label, place))
        self._said.pop(label, None)

    def _download(self, bundle: RemoteBundle) -> Path:
        """Download a bundle to a folder of its own, and check it; returns the folder.

        Raises:
            BundleError: it is damaged, or not complete yet.
            ObjectStoreError: it can't be read, or there is no room for it.
            OSError: it can't be written.
        """
        scratch = Path(tempfile.mkdtemp(prefix=".new-", dir=self._bundles))
        try:
            self._check_room(bundle)
            self._copy(bundle, MANIFEST, scratch, MOST_MANIFEST_BYTES)
            try:
                manifest = read_manifest(scratch)
            except BundleError as error:
                raise BundleError(str(error).removeprefix(f"{scratch.name}: ")) from error
            for name, digest in manifest.files.items():
                if self._copy(bundle, name, scratch, MOST_FILE_BYTES) != digest:
                    raise BundleError(f"{name} is not the one that its manifest lists; is it being uploaded?")
            if SIGNATURE in bundle.files:
                self._copy(bundle, SIGNATURE, scratch, MOST_SIGNATURE_BYTES)
            sync_folder(scratch)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        return scratch

    def _copy(self, bundle: RemoteBundle, name: str, target: Path, most: int) -> str:
        """Download a file of a bundle, and return its SHA-256."""
        remote = bundle.files.get(name)
        if remote is None:
            raise BundleError(f"{name} is missing; is it being uploaded?")
        if remote.size > most:
            raise BundleError(f"{name} is larger than {most:,} bytes")
        digest = sha256()
        with (target / name).open("wb") as file:
            for content in self._store.read(remote):
                digest.update(content)
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return digest.hexdigest()

    def _check_room(self, bundle: RemoteBundle) -> None:
        wanted = sum(file.size for file in bundle.files.values())
        used = sum(file.stat().st_size for file in self._bundles.glob("*/*"))
        if used + wanted > self._most_bytes:
            raise ObjectStoreError(
                f"its {wanted:,} bytes do not fit beside the {used:,} that are kept; raise model_cache_bytes"
            )

    def _point(self, link: Path, place: Path) -> None:
        """Have a link of the model folder lead to a bundle."""
        if link.is_symlink() and link.readlink().name == place.name:
            return
        if link.parent.is_symlink():  # a bundle that became a folder of versions
            link.parent.unlink()
        link.parent.mkdir(exist_ok=True)
        if link.is_dir() and not link.is_symlink():  # a folder of versions that became a bundle
            shutil.rmtree(link)
        scratch = link.with_name(f".{link.name}.new")
        scratch.unlink(missing_ok=True)
        scratch.symlink_to(os.path.relpath(place, link.parent))
        scratch.replace(link)

    def _follow_aliases(self, name: str, aliases: RemoteFile | None) -> None:
        """Bring a model's file of aliases to where the store is."""
        file = self.models / name / ALIASES
        if (self.models / name).is_symlink() or not (self.models / name).is_dir():
            return
        if aliases is None:
            file.unlink(missing_ok=True)
            self._aliases.pop(name, None)
        elif self._aliases.get(name) != aliases:
            if aliases.size > LARGEST_ALIASES:
                raise ObjectStoreError(f"is larger than {LARGEST_ALIASES:,} bytes")
            write_aliases(file, b"".join(self._store.read(aliases)).decode(errors="replace"))
            self._aliases[name] = aliases

    def _remove_gone(self, labels: set[str]) -> None:
        """Remove links to bundles that the store has no more, and then what they led to.

        A bundle that becomes a folder of versions, or versions that become a bundle, stay until the first of what
        replaces them is there (`_point`).

        Args:
            labels: where the bundles that it has lie in the model folder.
        """
        versioned = {label.partition("/")[0] for label in labels}
        for link in self._links():
            label = str(link.relative_to(self.models))
            if labels.isdisjoint((label, label.partition("/")[0])) and label not in versioned:
                link.unlink()
        for folder in self.models.iterdir():
            if folder.is_dir() and not folder.is_symlink() and not any(each.is_symlink() for each in folder.iterdir()):
                shutil.rmtree(folder)
                self._aliases.pop(folder.name, None)
        self._remove_unused()

    def _remove_unused(self) -> None:
        """Remove bundles to which no link leads, and what downloads have left that came to no end."""
        used = {link.readlink().name for link in self._links()}
        for place in self._bundles.iterdir():
            if place.name not in used:
                shutil.rmtree(place)

    def _links(self) -> list[Path]:
        return [link for pattern in ("*", "*/*") for link in self.models.glob(pattern) if link.is_symlink()]

    @contextmanager
    def _complaining(self, label: str, place: Place | None = None) -> Iterator[None]:
        """Log why something could not be done, note it for the bundle in a place, and go on."""
        try:
            yield
        except (BundleError, ObjectStoreError) as error:
            reason = str(error)
        except OSError as error:
            reason = f"can't be written to the server's disk ({error.strerror})"
        else:
            return
        self._say(label, "not downloaded", reason)
        if place is not None:
            self._withheld[place] = reason

    def _say(self, label: str, event: str, reason: str) -> None:
        """Log a problem, unless it is the one that was logged before."""
        if self._said.get(label) != event + reason:
            names = {"bundle": label} if label else {}
            self._log.error(event, store=self._store.shown, reason=reason, **names)
        self._said[label] = event + reason

    async def _call(self, function: Callable[[], Result], seconds: float = LISTING_SECONDS) -> Result:
        """Call a function that blocks, on a thread that is replaced if that takes too long.

        Raises:
            ObjectStoreError: it took too long.
        """
        calling = asyncio.get_running_loop().run_in_executor(self._thread, function)
        try:
            return await asyncio.wait_for(calling, seconds)
        except TimeoutError as error:
            self._thread.shutdown(wait=False)  # it may hang in the network for good
            self._thread = _new_thread()
            raise ObjectStoreError(f"it took longer than {seconds:g} s") from error


def _new_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="mirror")


def _link(name: str, folder: str) -> str:
    """Path of a bundle, relative to the model folder."""
    return f"{name}/{folder}" if folder else name

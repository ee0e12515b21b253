"""Contents of the model folder: bundles, versions of models side by side, and files of aliases."""

import os
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from innerloop_learner.manifest import MANIFEST
from innerloop_server.domain.model_versions import SEPARATOR

ALIASES = "aliases.toml"

LARGEST_ALIASES = 2**16
"""Bytes of a file of aliases beyond which it is not read: more than a thousand aliases need."""


Place = tuple[str, str]
"""Place of a bundle: its model, and the folder of its version, which is empty for a model without versions."""

Expect = Callable[[Collection[Place]], Awaitable[None]]
"""A function that is told which bundles will be in the model folder, before they are downloaded."""


class Refresh(Protocol):
    """Makes the model folder the same as the store that its models come from."""

    async def __call__(self, expect: Expect | None = None) -> Mapping[Place, str]:
        """Download what is new or changed; returns why bundles could not be downloaded."""


class FoundBundle(NamedTuple):
    """A bundle on disk.

    Attributes:
        path: of its folder.
        stamp: names, sizes and times of its files; another one means that the bundle may be another.
    """

    path: Path
    stamp: tuple[tuple[str, int, int], ...]


class FoundModel(NamedTuple):
    """A model on disk.

    Attributes:
        path: of its folder.
        bundles: by the folders of versions; a bundle without versions has an empty one.
        aliases: content of its file of aliases; empty where there is none.
    """

    path: Path
    bundles: Mapping[str, FoundBundle]
    aliases: str


def find_models(folder: Path) -> dict[str, FoundModel]:
    """The models of a folder by name; the folder may be a bundle itself.

    Raises:
        OSError: the folder can't be read.
    """
    if (folder / MANIFEST).is_file():
        folder = folder.resolve()  # the resolved folder's name is the model's
        return {folder.name: _found(folder)}
    return {path.name: _found(path) for path in _folders(folder)}


def is_name(folder: str) -> bool:
    """Whether a folder of this name may be a model or a version."""
    # Hidden ones are bundles that are still being written, and a name that is no text can stand in no message.
    return bool(folder) and not folder.startswith(".") and folder.isprintable() and SEPARATOR not in folder


def _found(path: Path) -> FoundModel:
    versions = [] if (path / MANIFEST).is_file() else _folders(path)
    if versions:
        return FoundModel(path, {each.name: _bundle(each) for each in versions}, _aliases(path / ALIASES))
    return FoundModel(path, {"": _bundle(path)}, "")


def _folders(path: Path) -> list[Path]:
    """The folders below one that may be models or versions."""
    return [each for each in path.iterdir() if each.is_dir() and is_name(each.name)]


def _bundle(path: Path) -> FoundBundle:
    stamp = []
    with os.scandir(path) as files:
        for file in files:
            try:
                status = file.stat()
            except OSError:  # it is being replaced
                stamp.append((file.name, -1, -1))
            else:
                stamp.append((file.name, status.st_size, status.st_mtime_ns))
    return FoundBundle(path, tuple(sorted(stamp)))


def _aliases(file: Path) -> str:
    if not file.is_file() or file.stat().st_size > LARGEST_ALIASES:
        return ""
    return file.read_text(errors="replace")

"""Models in object stores (s3://, gs://, ...), and whatever else fsspec reaches by a URL: finds and reads them."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple

from fsspec import get_filesystem_class
from fsspec.core import url_to_fs

from innerloop_learner.manifest import FILES, MANIFEST
from innerloop_learner.signatures import SIGNATURE
from innerloop_server.models.folder import ALIASES, is_name

CHUNK_BYTES = 2**20
"""Bytes that are read at a time."""

MOST_FOLDERS = 2
"""Folders that a file of a bundle lies in, below that of all models: its model's, and its version's."""

_WANTED = FILES | {MANIFEST, SIGNATURE}
"""Names of the files that are read of a bundle; whatever else lies there stays there."""

_TAGS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "updated", "created")
"""What the file systems of fsspec say of a file that is another one once it was written again."""


class ObjectStoreError(Exception):
    """A store that can't be used, or not now; the message says why, without secrets."""


class RemoteFile(NamedTuple):
    """A file in a store.

    Attributes:
        path: where it lies.
        size: its bytes.
        tag: says what is known of its content; another one means that the file may be another.
    """

    path: str
    size: int
    tag: str


@dataclass(frozen=True)
class RemoteBundle:
    """A bundle in a store: its files by name."""

    files: Mapping[str, RemoteFile]

    @property
    def key(self) -> str:
        """Names what lies there now: another one means that the bundle may be another."""
        # With their paths: some stores say no more than a size and a second, in which two bundles may be alike.
        known = "\n".join(repr(tuple(self.files[name])) for name in sorted(self.files))
        return sha256(known.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class RemoteModel:
    """A model in a store.

    Attributes:
        bundles: by the folders of versions; a bundle without versions has an empty one.
        aliases: its file of aliases; None where there is none.
    """

    bundles: Mapping[str, RemoteBundle]
    aliases: RemoteFile | None = None


@dataclass
class _Folder:
    """Files and folders below one of a store, by name."""

    files: dict[str, RemoteFile] = field(default_factory=dict)
    folders: "dict[str, _Folder]" = field(default_factory=dict)


class ObjectStore:
    """Models below a URL, laid out like those of a model folder. Its functions block.

    Args:
        url: of the folder of models, or of a bundle.

    Attributes:
        shown: the URL for logs.

    Raises:
        ObjectStoreError: there is no such kind of store, or the package for it is not installed.
    """

    def __init__(self, url: str) -> None:
        self.shown = shown(url)
        self._url = url
        self._system: Any = None
        kind = url.partition("://")[0]
        try:
            get_filesystem_class(kind)
        except ImportError as error:
            raise ObjectStoreError(f"{kind}:// needs a package that is not installed: {error}") from error
        except ValueError as error:
            raise ObjectStoreError(f"{kind}:// is no store that fsspec knows") from error

    def find_models(self) -> dict[str, RemoteModel]:
        """The models of the store by name.

        Raises:
            ObjectStoreError: the store can't be read.
        """
        with _explained():
            self._system, path = url_to_fs(self._url)
            self._system.invalidate_cache()
            path = path.rstrip("/")
            root = _tree(path, self._system.find(path, detail=True))
        if MANIFEST in root.files:
            name = path.rpartition("/")[2]
            return {name: RemoteModel({"": _bundle(root)})} if is_name(name) else {}
        models = {name: _model(folder) for name, folder in root.folders.items()}
        return {name: model for name, model in models.items() if model.bundles}

    def read(self, file: RemoteFile) -> Iterator[bytes]:
        """The content of a file, in pieces.

        Raises:
            ObjectStoreError: the file can't be read, or has other bytes than it had.
        """
        read = 0
        with _explained(), self._system.open(file.path, "rb") as source:
            while content := source.read(CHUNK_BYTES):
                read += len(content)
                if read > file.size:
                    break
                yield content
        if read != file.size:
            raise ObjectStoreError(f"{file.path.rpartition('/')[2]} changed while it was read")


def shown(url: str) -> str:
    """A URL without names, passwords and options, which may be secret."""
    return re.sub(r"(?<=://).*@", "", url, flags=re.DOTALL).partition("?")[0]


def without_secrets(url: str) -> str:
    """A URL without passwords, the names before them, and options: the same for all who may read a store.

    A name alone is not who reads but what is read, such as the container in abfs://CONTAINER@ACCOUNT.

    >>> without_secrets("sftp://me:secret@host/models?token=1"), without_secrets("abfs://models@account/models")
    ('sftp://host/models', 'abfs://models@account/models')
    """
    return re.sub(r"(?<=://)[^:/@]*:.*@", "", url, flags=re.DOTALL).partition("?")[0]


def _tree(root: str, found: Mapping[str, Mapping[str, Any]]) -> _Folder:
    """Files that may belong to models, in their folders; `found` says by path what lies below a root."""
    tree = _Folder()
    for path, info in found.items():
        *folders, name = path[len(root) :].removeprefix("/").split("/")
        # A store takes names that no folder of models may have, such as `..`.
        if info["type"] != "file" or len(folders) > MOST_FOLDERS or not all(map(is_name, folders)):
            continue
        place = tree
        for folder in folders:
            place = place.folders.setdefault(folder, _Folder())
        tag = " ".join(str(info[key]) for key in _TAGS if info.get(key) is not None)
        place.files[name] = RemoteFile(path, int(info["size"]), tag)
    return tree


def _model(folder: _Folder) -> RemoteModel:
    if MANIFEST in folder.files:
        return RemoteModel({"": _bundle(folder)})
    bundles = {name: _bundle(each) for name, each in folder.folders.items() if MANIFEST in each.files}
    return RemoteModel(bundles, folder.files.get(ALIASES))


def _bundle(folder: _Folder) -> RemoteBundle:
    return RemoteBundle({name: file for name, file in folder.files.items() if name in _WANTED})


@contextmanager
def _explained() -> Iterator[None]:
    """Turn whatever a library raises into an error that can be logged: texts of libraries may hold secrets."""
    try:
        yield
    except FileNotFoundError as error:
        raise ObjectStoreError("there is no such bucket, folder or file") from error
    except PermissionError as error:
        raise ObjectStoreError("access is denied; look at the credentials in the server's environment") from error
    except Exception as error:
        raise ObjectStoreError(type(error).__name__) from error

"""Reads the files of a folder or of an archive in the same way."""

import bz2
import contextlib
import gzip
import lzma
import os
import shutil
import tarfile
import tempfile
import unicodedata
import weakref
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path, PurePath, PurePosixPath
from typing import IO, Any

from innerloop_trainer.data.source import DataError
from innerloop_trainer.data.tables import TABLES

Stamp = list[str | int]
"""Name, size and time of change of a file, which together tell whether it has changed."""

Entry = tuple[PurePosixPath, bool]
"""A path, and whether a folder lies there."""

JUNK = {"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "system volume information"}
"""Names of files and folders that macOS, Windows and network drives leave behind, in lower case."""

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

OPENERS: Mapping[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".tgz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}
"""Functions that decompress tar archives, by file extension."""

DAMAGED = (
    OSError,
    EOFError,
    RuntimeError,  # encrypted, or packed in a way that Python does not know
    UnicodeDecodeError,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)
"""Exceptions that archives raise where they are damaged or foreign."""

MS_DOS = 0
"""Mark of a zip entry made on Windows, where no name has a backslash but between folders."""

UTF8_FLAG = 0x800
"""Mark of a zip entry whose name is UTF-8."""


class UnreadableFileError(ValueError):
    """A file can't be read; the message is to follow its name."""


class FileTree(ABC):
    """Files and folders below one root, without hidden files and files that operating systems leave behind.

    Attributes:
        root: path of the folder or archive.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    @abstractmethod
    def files(self) -> list[PurePosixPath]:
        """Paths of all files relative to the root, sorted."""

    @cached_property
    @abstractmethod
    def folders(self) -> list[PurePosixPath]:
        """Paths of all folders relative to the root, sorted."""

    @abstractmethod
    def read(self, path: PurePosixPath) -> bytes:
        """Read the content of one file.

        Raises:
            UnreadableFileError: the file can't be read.
        """

    @abstractmethod
    def identity(self) -> list[Stamp]:
        """Plain data that differs whenever the content does."""

    @staticmethod
    def shown(path: PurePath) -> str:
        """A path as its user sees it.

        Names that are not UTF-8 are read as Western European, and accents, which macOS splits off, are put back.
        """
        name = os.fsencode(str(path))
        try:
            text = name.decode()
        except UnicodeDecodeError:
            text = name.decode("cp1252", errors="replace")
        return unicodedata.normalize("NFC", text)


class FolderTree(FileTree):
    """The files below a folder; links to files and folders are followed."""

    @cached_property
    def files(self) -> list[PurePosixPath]:  # noqa: D102
        return [path for path, is_folder in self._entries if not is_folder]

    @cached_property
    def folders(self) -> list[PurePosixPath]:  # noqa: D102
        return [path for path, is_folder in self._entries if is_folder]

    def read(self, path: PurePosixPath) -> bytes:  # noqa: D102
        try:
            return (self.root / path).read_bytes()
        except OSError as error:
            raise UnreadableFileError(f"can't be read ({error.strerror})") from error

    def identity(self) -> list[Stamp]:  # noqa: D102
        root = str(self.root.resolve())
        stamps: list[Stamp] = [[root]]
        for path in map(str, self.files):
            with contextlib.suppress(OSError):  # a link to nothing
                found = os.stat(f"{root}/{path}")  # noqa: PTH116 - a path object takes ten times as long to make
                stamps.append([path, found.st_size, found.st_mtime_ns])
        return stamps

    @cached_property
    def _entries(self) -> list[Entry]:
        """Each path below the root, sorted, and whether it is a folder."""
        return list(self._walk(PurePosixPath(), frozenset()))

    def _walk(self, folder: PurePosixPath, above: frozenset[tuple[int, int]]) -> Iterator[Entry]:
        """Give what lies below a folder; `above` are device and inode numbers of the folders around it."""
        try:
            found = (self.root / folder).stat()
            with os.scandir(self.root / folder) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"{self.root / folder} can't be read ({error.strerror})") from error
        here = (found.st_dev, found.st_ino)
        if here in above:  # a link to a folder that it lies in
            return
        for entry in entries:
            if not is_visible(entry.name):
                continue
            path = folder / entry.name
            if _is_folder(entry):
                yield path, True
                yield from self._walk(path, above | {here})
            elif entry.is_symlink() or entry.is_file():  # a link to nothing is a file that can't be read
                yield path, False


class ArchiveTree(FileTree):
    """The files of an archive."""

    @cached_property
    def files(self) -> list[PurePosixPath]:  # noqa: D102
        return sorted(path for path, is_folder in self._entries() if not is_folder and _is_all_visible(path))

    @cached_property
    def folders(self) -> list[PurePosixPath]:  # noqa: D102
        named = {path for path, is_folder in self._entries() if is_folder}
        filled = named | {path.parent for path in self.files}
        everything = {above for path in filled for above in (path, *path.parents)}
        return sorted(path for path in everything if path.parts and _is_all_visible(path))

    def identity(self) -> list[Stamp]:  # noqa: D102
        found = self.root.stat()
        return [[str(self.root.resolve()), found.st_size, found.st_mtime_ns]]

    @abstractmethod
    def _entries(self) -> Iterator[Entry]:
        """Give the path of each entry, and whether it is a folder."""


class ZipTree(ArchiveTree):
    """The files of a zip archive."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        try:
            self._archive = zipfile.ZipFile(root)
        except DAMAGED as error:
            hint = f"a table is read by texts:{root}" if root.suffix.lower() in TABLES else "copy or download it again"
            raise DataError(f"{root} is not a readable zip archive ({error}); {hint}") from error
        named = [(_zip_name(entry), entry) for entry in self._archive.infolist()]
        self._infos = {_path_of(name): entry for name, entry in named}
        self._folders = {_path_of(name) for name, _ in named if name.endswith("/")}

    def read(self, path: PurePosixPath) -> bytes:  # noqa: D102
        try:
            return self._archive.read(self._infos[path])
        except DAMAGED as error:
            raise UnreadableFileError(f"can't be unpacked ({error})") from error

    def _entries(self) -> Iterator[Entry]:
        return ((path, path in self._folders) for path in self._infos)


class TarTree(ArchiveTree):
    """The files of a tar archive, compressed or not; links in it are passed over."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        try:
            file = _unpacked(root)
            weakref.finalize(self, file.close)
            self._archive = tarfile.open(fileobj=file)  # noqa: SIM115 - it is read as long as the tree
            self._members = {_path_of(each.name): each for each in self._archive.getmembers()}
        except DAMAGED as error:
            raise DataError(f"{root} is not a readable tar archive ({error}); copy or download it again") from error

    def read(self, path: PurePosixPath) -> bytes:  # noqa: D102
        try:
            file = self._archive.extractfile(self._members[path])
            return file.read() if file else b""
        except DAMAGED as error:
            raise UnreadableFileError(f"can't be unpacked ({error})") from error

    def _entries(self) -> Iterator[Entry]:
        return ((path, each.isdir()) for path, each in self._members.items() if each.isdir() or each.isreg())


def open_tree(path: Path) -> FileTree:
    """Open the folder or archive at `path`.

    Raises:
        DataError: `path` is neither a folder nor an archive.
    """
    if path.is_dir():
        return FolderTree(path)
    return TarTree(path) if path.name.lower().endswith(ARCHIVES[1:]) else ZipTree(path)


def is_visible(name: str) -> bool:
    """Whether a file or folder of this name is of its user's making: neither hidden nor one of `JUNK`."""
    return not name.startswith(".") and name.lower() not in JUNK


def title_of(path: Path) -> str:
    """The name of a folder or an archive, without the archive's extension."""
    name = FileTree.shown(PurePosixPath(path.resolve().name))
    ends = [end for end in ARCHIVES if name.lower().endswith(end)]
    return name[: -max(map(len, ends))] if ends else name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; a link to itself is neither."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_all_visible(path: PurePosixPath) -> bool:
    return all(map(is_visible, path.parts))


def _path_of(name: str) -> PurePosixPath:
    """The path of an entry below the root of its archive; some programs write names such as `/home/me/cat/1.png`."""
    return PurePosixPath(name.lstrip("/"))


def _zip_name(entry: zipfile.ZipInfo) -> str:
    """The path of an entry, its folders divided by slashes."""
    name = entry.filename
    if not entry.flag_bits & UTF8_FLAG:
        with contextlib.suppress(UnicodeError):  # macOS writes UTF-8 without setting its flag
            name = name.encode("cp437").decode()
    return name.replace("\\", "/") if entry.create_system == MS_DOS else name


def _unpacked(root: Path) -> IO[bytes]:
    """Decompress a tar archive, so that a file can be read without reading everything before it."""
    opener = next((opener for end, opener in OPENERS.items() if root.name.lower().endswith(end)), None)
    if opener is None:
        return root.open("rb")
    file = tempfile.TemporaryFile()  # noqa: SIM115 - it is read as long as the tree
    try:
        with opener(root, "rb") as packed:
            shutil.copyfileobj(packed, file)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file

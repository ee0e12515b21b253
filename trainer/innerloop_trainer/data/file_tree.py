"""A folder or a zip archive of files, read alike."""

import zipfile
import zlib
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path, PurePosixPath

from innerloop_trainer.data.source import DataError

Stamp = list[str | int]
"""Name, size and time of a file: changes when the file does."""


class FileTree(ABC):
    """Files and folders below one root; hidden ones and what macOS adds to archives are left out.

    Attributes:
        root: the folder or the archive.
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
        """Content of one file.

        Raises:
            DataError: it can't be read.
        """

    @abstractmethod
    def identity(self) -> list[Stamp]:
        """Plain data that differs whenever the content does."""


class FolderTree(FileTree):
    """The files below a folder."""

    @cached_property
    def files(self) -> list[PurePosixPath]:  # noqa: D102
        return sorted(path for path in self._walk() if (self.root / path).is_file())

    @cached_property
    def folders(self) -> list[PurePosixPath]:  # noqa: D102
        return sorted(path for path in self._walk() if (self.root / path).is_dir())

    def read(self, path: PurePosixPath) -> bytes:  # noqa: D102
        try:
            return (self.root / path).read_bytes()
        except OSError as error:
            raise DataError(f"{self.root / path} can't be read ({error.strerror})") from error

    def identity(self) -> list[Stamp]:  # noqa: D102
        stamps: list[Stamp] = [[str(self.root.resolve())]]
        for path in self.files:
            stat = (self.root / path).stat()
            stamps.append([str(path), stat.st_size, stat.st_mtime_ns])
        return stamps

    def _walk(self) -> list[PurePosixPath]:
        paths = (PurePosixPath(path.relative_to(self.root)) for path in self.root.rglob("*"))
        return [path for path in paths if _visible(path)]


class ZipTree(FileTree):
    """The files of a zip archive."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        try:
            self._archive = zipfile.ZipFile(root)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{root} is not a readable zip archive ({error}); copy or download it again") from error

    @cached_property
    def files(self) -> list[PurePosixPath]:  # noqa: D102
        names = (entry.filename for entry in self._archive.infolist() if not entry.is_dir())
        return sorted(path for path in map(PurePosixPath, names) if _visible(path))

    @cached_property
    def folders(self) -> list[PurePosixPath]:  # noqa: D102
        named = {PurePosixPath(entry.filename) for entry in self._archive.infolist() if entry.is_dir()}
        implied = {parent for path in (*named, *self.files) for parent in path.parents if parent.parts}
        return sorted(path for path in named | implied if _visible(path))

    def read(self, path: PurePosixPath) -> bytes:  # noqa: D102
        try:
            return self._archive.read(str(path))
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise DataError(f"{self.root}: {path} can't be unpacked ({error}); copy or download it again") from error

    def identity(self) -> list[Stamp]:  # noqa: D102
        stat = self.root.stat()
        return [[str(self.root.resolve()), stat.st_size, stat.st_mtime_ns]]


def open_tree(path: Path) -> FileTree:
    """The files below the folder or in the zip archive at `path`.

    Raises:
        DataError: it is neither.
    """
    return FolderTree(path) if path.is_dir() else ZipTree(path)


def _visible(path: PurePosixPath) -> bool:
    return not any(part.startswith(".") or part == "__MACOSX" for part in path.parts)

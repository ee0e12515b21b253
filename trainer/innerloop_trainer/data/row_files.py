"""Rows of arrays in files of NumPy's format `.npy`, written one after the other and read by memory mapping.

An array [N, ...] that need not fit in memory lies in files `STEM-00000.npy`, `STEM-00001.npy`, ..., each of which holds
some of its rows.
"""

import math
import mmap
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from innerloop_trainer.data.source import DataError

FILE_BYTES = 512 * 2**20
"""Bytes of rows after which the next file is begun: a terabyte then takes fewer open files than a process may have, and
each is small enough to be copied by itself."""

MAPPED_BYTES = 64 * 2**20
"""Bytes of mapped files that are kept in a process's memory, at most; what is in the system's cache is read from there
again without touching a disk."""

LEAST_MAPPED = 256 * 2**10
"""Bytes that the system may map around each row that is read: 64 KiB, and more where its cache holds larger pages."""


@dataclass(frozen=True)
class RowFile:
    """A file of rows: its path, and how many there are."""

    path: Path
    rows: int


class RowWriter(AbstractContextManager["RowWriter"]):
    """Writes rows to files, of which it keeps nothing in memory. Leaving its context closes the file under way.

    Args:
        folder: folder of the files.
        stem: beginning of their names.
        shape: shape of a row.
        dtype: element type.
    """

    def __init__(self, folder: Path, stem: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._folder, self._stem, self._shape, self._dtype = folder, stem, shape, dtype
        self._most = max(1, FILE_BYTES // (math.prod(shape) * dtype.itemsize))
        self._files: list[RowFile] = []
        self._under_way: _OpenFile | None = None

    def __exit__(self, *_: object) -> None:
        if self._under_way is not None:
            self._under_way.file.close()

    def append(self, rows: NDArray[Any]) -> None:
        """Write rows [n, ...]."""
        while len(rows):
            file = self._under_way or self._open()
            taken = rows[: self._most - file.rows]
            file.write(taken)
            rows = rows[len(taken) :]
            if file.rows == self._most:
                self._finish_file()

    def finish(self) -> list[RowFile]:
        """End writing; returns the files."""
        self._finish_file()
        return self._files

    def _open(self) -> "_OpenFile":
        path = self._folder / f"{self._stem}-{len(self._files):05}.npy"
        self._under_way = _OpenFile(path, self._shape, self._dtype)
        return self._under_way

    def _finish_file(self) -> None:
        if self._under_way is not None:
            self._files.append(self._under_way.finish())
            self._under_way = None


class _OpenFile:
    """A file of rows that is being written."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.file, self.rows = path.open("xb"), 0
        self._path, self._shape, self._dtype = path, shape, dtype
        self._write_header()

    def write(self, rows: NDArray[Any]) -> None:
        self.file.write(np.ascontiguousarray(rows, self._dtype).data)
        self.rows += len(rows)

    def finish(self) -> RowFile:
        """Close the file. NumPy leaves room in the header for the number of rows to become longer."""
        with self.file:
            self.file.seek(0)
            self._write_header()
            self.file.flush()
            os.fsync(self.file.fileno())
        return RowFile(self._path, self.rows)

    def _write_header(self) -> None:
        shape = (self.rows, *self._shape)
        described = {"descr": npy.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(self.file, described)


class MappedRows:
    """An array [N, ...] on disk, of which only the rows that are asked for come into memory.

    Args:
        files: the files, mapped.
        rows: numbers of its rows in all files [N].

    Attributes:
        shape: shape of the array.
        dtype: element type.
    """

    def __init__(self, files: "MappedFiles", rows: NDArray[np.int64]) -> None:
        self.shape, self.dtype = (len(rows), *files.shape), files.dtype
        self._files, self._rows = files, rows

    @classmethod
    def of_files(cls, files: Sequence[RowFile], shape: tuple[int, ...], dtype: np.dtype[Any]) -> "MappedRows":
        """All rows of some files.

        Args:
            files: the files, in order.
            shape: shape of a row.
            dtype: element type.

        Raises:
            DataError: a file is missing, damaged, or has other rows.
        """
        mapped = MappedFiles([map_file(file, shape, dtype) for file in files], shape, dtype)
        return cls(mapped, np.arange(sum(file.rows for file in files)))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, which: slice | NDArray[Any]) -> NDArray[Any]:
        """Some of the rows, read into memory."""
        return self._files.take(self._rows[which])

    def __array__(self, dtype: np.dtype[Any] | None = None, copy: bool | None = None) -> NDArray[Any]:
        """All rows, read into memory."""
        del copy
        return self[:] if dtype is None else self[:].astype(dtype)

    def select(self, which: NDArray[Any]) -> "MappedRows":
        """Some of the rows, left on disk."""
        return MappedRows(self._files, self._rows[which])

    def first_channel(self) -> "MappedRows":
        """The rows [N, 1, ...] of the first channel of images [N, C, ...], left on disk."""
        return MappedRows(self._files.first_channel(), self._rows)

    def joined(self, *others: "MappedRows") -> "MappedRows":
        """These rows and others behind them, left on disk."""
        every = (self, *others)
        ends = np.cumsum([self._files.count if each is self else each._files.count for each in every])
        starts = [0, *ends[:-1].tolist()]
        rows = [each._rows + start for each, start in zip(every, starts, strict=True)]
        return MappedRows(self._files.joined(*(other._files for other in others)), np.concatenate(rows))


class MappedFiles:
    """Files of rows, mapped into memory, which forgets most of what it has read.

    Args:
        files: mapped file and the array in it, of each file.
        shape: shape of a row.
        dtype: element type.
    """

    def __init__(
        self, files: Sequence[tuple[mmap.mmap, NDArray[Any]]], shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        self.shape, self.dtype = shape, dtype
        self._files = files
        self._arrays = [array for _, array in files]
        self._ends = np.cumsum([len(array) for array in self._arrays], dtype=np.int64)
        self._most = max(1, MAPPED_BYTES // max(math.prod(shape) * dtype.itemsize, LEAST_MAPPED))
        self._mapped = 0

    @property
    def count(self) -> int:
        """Number of rows."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Rows [n, ...] by their numbers [n]."""
        taken = np.empty((len(rows), *self.shape), self.dtype)
        for start in range(0, len(rows), self._most):
            self._copy(rows[start : start + self._most], taken[start : start + self._most])
        return taken

    def _copy(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        self._forget(len(rows))
        where = np.searchsorted(self._ends, rows, side="right")
        for number in np.unique(where):
            array = self._arrays[number]
            chosen = where == number
            out[chosen] = array[rows[chosen] - (self._ends[number] - len(array))]

    def first_channel(self) -> "MappedFiles":
        """The first channel of images [C, ...]."""
        files = [(file, array[:, :1]) for file, array in self._files]
        return MappedFiles(files, (1, *self.shape[1:]), self.dtype)

    def joined(self, *others: "MappedFiles") -> "MappedFiles":
        """These files and others behind them."""
        files = [file for each in (self, *others) for file in each._files]
        return MappedFiles(files, self.shape, self.dtype)

    def _forget(self, rows: int) -> None:
        """Unmap what was read if so many more rows would be too much: mapped files count as the process's memory."""
        if self._mapped + rows > self._most and hasattr(mmap, "MADV_DONTNEED"):
            for file, _ in self._files:
                file.madvise(mmap.MADV_DONTNEED)
            self._mapped = 0
        self._mapped += rows


def map_file(file: RowFile, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[mmap.mmap, NDArray[Any]]:
    """Map a file of rows into memory; returns the mapped file, and the array in it.

    Raises:
        DataError: the file is missing, damaged, or has other rows.
    """
    expected = (file.rows, *shape)
    try:
        with file.path.open("rb") as opened:
            if npy.read_magic(opened) != (1, 0):
                raise ValueError("it is of another version of the format")
            found, fortran_order, element = npy.read_array_header_1_0(opened)
            if (found, fortran_order, element) != (expected, False, dtype):
                raise ValueError(f"it has {element} of shape {found}, not {dtype} of shape {expected}")
            start, count = opened.tell(), math.prod(expected)
            mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        if len(mapped) != start + count * dtype.itemsize:
            raise ValueError("it was cut off, or something was written behind its end")
        return mapped, np.frombuffer(mapped, dtype, count, start).reshape(expected)
    except OSError as error:
        raise DataError(f"{file.path} can't be read ({error.strerror})") from error
    except ValueError as error:
        raise DataError(f"{file.path} is damaged: {error}") from error

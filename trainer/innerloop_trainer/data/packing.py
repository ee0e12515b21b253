"""Packs a data source: writes its examples to disk as they are drawn, so that data may be larger than memory.

Files are read and decoded once, some at a time, into temporary files beside the pack. From there the examples of each
split are copied class after class. Memory holds the names and digests of files, and a few MB of examples.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from innerloop_trainer.data.class_examples import ClassExamples
from innerloop_trainer.data.load import load_source
from innerloop_trainer.data.pack_index import SPLITS, PackIndex, describe_examples
from innerloop_trainer.data.row_files import RowWriter
from innerloop_trainer.data.source import DataError, DataSource, TaskSampler
from innerloop_trainer.progress import progress_of


@dataclass(frozen=True)
class Packed:
    """What was packed.

    Attributes:
        source: the source, as it was read.
        examples: number of examples.
        bytes: bytes of its files.
    """

    source: DataSource
    examples: int
    bytes: int


def pack(text: str, folder: Path) -> Packed:
    """Write a data source into a folder, from which `packed:FOLDER` draws the same episodes.

    The folder comes into being when all of it is written. Until then, files lie in a hidden folder beside it, which is
    removed if writing fails or is interrupted.

    Args:
        text: the source, for example "images:~/photos?size=84".
        folder: folder to write, which must not exist or be empty.

    Raises:
        DataError: the source can't be read or packed, or the folder holds something.
        OSError: the disk is full, or the folder can't be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} is there already; name another folder, or remove it first")
    with _scratch_beside(folder) as scratch:
        source = load_source(text, scratch=scratch)
        written = scratch / "pack"
        written.mkdir()
        splits = {split: _write_split(written, split, _examples_of(source, getattr(source, split))) for split in SPLITS}
        PackIndex.of(source, splits).write(written)
        size = sum(file.stat().st_size for file in written.iterdir())
        written.rename(folder)
    examples = sum(each["examples"] for split in splits.values() for each in split["classes"])
    return Packed(source, examples, size)


@contextmanager
def _scratch_beside(folder: Path) -> Iterator[Path]:
    """A temporary folder on the same disk as `folder`, so that what is whole can be moved there at once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        yield Path(scratch)


def _examples_of(source: DataSource, split: TaskSampler) -> ClassExamples:
    if source.texts or not isinstance(split, ClassExamples):
        what = "texts, which take no more memory than their file" if source.texts else "no examples that are kept"
        raise DataError(f"{source.name} has {what}; use it as it is")
    return split


def _write_split(folder: Path, name: str, split: ClassExamples) -> dict[str, Any]:
    """Write the examples of a split in their order; returns their description."""
    data = split.data
    shape, dtype = tuple(data.examples.shape[1:]), data.examples.dtype
    with (
        RowWriter(folder, name, shape, dtype) as writer,
        progress_of(f"Writing {name}", len(data.examples), "examples") as advance,
    ):
        for part in data.in_parts():
            writer.append(part)
            advance(len(part))
        return describe_examples(data, writer.finish())

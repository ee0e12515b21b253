"""Decodes the files of all classes into one array."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from innerloop_learner.media import Color, decode_image
from innerloop_trainer.data.class_digests import digest_classes
from innerloop_trainer.data.decoded_files import decoded_files
from innerloop_trainer.data.example_set import Examples, ExampleSet
from innerloop_trainer.data.file_tree import FileTree
from innerloop_trainer.data.left_out import Broken
from innerloop_trainer.data.row_files import MappedRows, RowWriter
from innerloop_trainer.data.source import DataError
from innerloop_trainer.progress import progress_of


@dataclass(frozen=True)
class Decoder:
    """Makes an example of a file.

    Attributes:
        decode: function from the content of a file to its example.
        shape: shape of the examples.
        dtype: element type of the examples.
        noun: what the examples are, for messages, for example "images of 64 x 64 pixels".
        advice: what to do where all examples need more memory than there is.
    """

    decode: Callable[[bytes], NDArray[Any]]
    shape: tuple[int, ...]
    dtype: type[np.generic]
    noun: str
    advice: str


def image_decoder(size: tuple[int, int], color: Color) -> Decoder:
    """Makes images [C, height, width] of the given height and width, gray ("L") or in colour ("RGB")."""
    return Decoder(
        lambda content: decode_image(content, size, color),
        (1 if color == "L" else 3, *size),
        np.uint8,
        f"images of {size[0]} x {size[1]} pixels",
        "choose a smaller ?size=",
    )


def decode_classes(
    tree: FileTree,
    classes: Mapping[str, Sequence[PurePosixPath]],
    decoder: Decoder,
    *,
    skip_broken: bool = False,
    advice: str = "replace or remove them",
    speakers: Mapping[PurePosixPath, int] | None = None,
    scratch: Path | None = None,
) -> ExampleSet:
    """Decode the files of every class.

    Args:
        tree: folder or archive that holds the files.
        classes: paths of files by class name.
        decoder: decoder of the files.
        skip_broken: whether files that can't be read are left out.
        advice: advice for messages about such files.
        speakers: number of the speaker of each file, where episodes keep speakers apart.
        scratch: folder to put the examples into, as in `SourceRequest`.

    Raises:
        DataError: files can't be read, and the message names them; or all together need too much memory.
    """
    homes = [(row, path) for row, paths in enumerate(classes.values()) for path in paths]
    room = _InMemory(tree, len(homes), decoder) if scratch is None else _OnDisk(scratch, decoder)
    counts = np.zeros(len(classes), dtype=np.int64)
    hashes: list[bytes] = []
    heard: list[int] = []
    broken = Broken(str(tree.root))
    decoded = decoded_files(tree, [path for _, path in homes], decoder.decode)
    with room, progress_of(f"Decoding {tree.root.name}", len(homes), "files") as advance:
        for (row, path), found in zip(homes, decoded, strict=True):
            advance(1)
            if isinstance(found, str):
                broken.note(f"{tree.shown(path)} {found}")
                continue
            room.append(found.example)
            hashes.append(found.digest)
            counts[row] += 1
            if speakers is not None:
                heard.append(speakers[path])
        examples = room.examples()
    if not skip_broken:
        broken.refuse(advice)
    return ExampleSet(
        tuple(classes),
        counts,
        examples,
        digest_classes(counts, hashes),
        None if speakers is None else np.array(heard, dtype=np.int64),
    )


class _InMemory(AbstractContextManager["_InMemory"]):
    """Room for examples in an array.

    Raises:
        DataError: so many need more memory than there is.
    """

    def __init__(self, tree: FileTree, count: int, decoder: Decoder) -> None:
        self._filled = 0
        try:
            self._room = np.empty((count, *decoder.shape), dtype=decoder.dtype)
        except MemoryError as error:
            needed = count * np.prod(decoder.shape, dtype=float) * np.dtype(decoder.dtype).itemsize / 2**30
            raise DataError(
                f"{tree.root}: {count:,} {decoder.noun} need {needed:,.0f} GiB of memory, more than there is; "
                f"{decoder.advice}, or read them from disk (`innerloop data pack`)"
            ) from error

    def __exit__(self, *_: object) -> None:
        pass

    def append(self, example: NDArray[Any]) -> None:
        self._room[self._filled] = example
        self._filled += 1

    def examples(self) -> Examples:
        return self._room[: self._filled]


class _OnDisk(AbstractContextManager["_OnDisk"]):
    """Room for examples in files, in a folder of their own."""

    def __init__(self, scratch: Path, decoder: Decoder) -> None:
        self._shape, self._dtype = decoder.shape, np.dtype(decoder.dtype)
        self._writer = RowWriter(Path(tempfile.mkdtemp(dir=scratch)), "decoded", self._shape, self._dtype)

    def __exit__(self, *how: object) -> None:
        self._writer.__exit__(*how)

    def append(self, example: NDArray[Any]) -> None:
        self._writer.append(example[None])

    def examples(self) -> Examples:
        return MappedRows.of_files(self._writer.finish(), self._shape, self._dtype)

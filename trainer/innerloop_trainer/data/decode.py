"""Decodes the image files of all classes into one array."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from innerloop_learner.media import Color, UnreadableImageError, decode_image
from innerloop_trainer.data.class_digests import digest_classes
from innerloop_trainer.data.example_set import ExampleSet
from innerloop_trainer.data.file_tree import FileTree, UnreadableFileError
from innerloop_trainer.data.left_out import Broken
from innerloop_trainer.data.progress import tracked
from innerloop_trainer.data.source import DataError


def decode_classes(
    tree: FileTree,
    classes: Mapping[str, Sequence[PurePosixPath]],
    size: tuple[int, int],
    color: Color,
    *,
    skip_broken: bool = False,
    advice: str = "replace or remove them",
) -> ExampleSet:
    """Decode the files of every class.

    Args:
        tree: folder or archive that holds the files.
        classes: paths of files by class name.
        size: height and width of the result in pixels.
        color: "L" for gray, "RGB" for colour.
        skip_broken: whether files that are no readable images are left out.
        advice: advice for messages about such files.

    Raises:
        DataError: files are no readable images, and the message names them; or all together need too much memory.
    """
    files = [(row, path) for row, paths in enumerate(classes.values()) for path in paths]
    images = _make_room(tree, len(files), 1 if color == "L" else 3, size)
    counts = np.zeros(len(classes), dtype=np.int64)
    hashes: list[bytes] = []
    broken = Broken(str(tree.root))
    for row, path in tracked(files, f"Decoding {tree.root.name}"):
        try:
            content = tree.read(path)
            images[len(hashes)] = decode_image(content, size, color)
        except (UnreadableFileError, UnreadableImageError) as error:
            broken.note(f"{tree.shown(path)} {error}")
            continue
        hashes.append(hashlib.sha256(content).digest())
        counts[row] += 1
    if not skip_broken:
        broken.refuse(advice)
    return ExampleSet(tuple(classes), counts, images[: len(hashes)], digest_classes(counts, hashes))


def _make_room(tree: FileTree, count: int, channels: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Memory for so many images [N, C, height, width], not filled yet."""
    try:
        return np.empty((count, channels, *size), dtype=np.uint8)
    except MemoryError as error:
        needed = count * channels * size[0] * size[1] / 2**30
        raise DataError(
            f"{tree.root}: {count:,} images of {size[0]} x {size[1]} pixels need {needed:,.0f} GiB of memory, more "
            f"than there is; choose a smaller ?size="
        ) from error

"""Reads files one after the other and decodes them in several threads.

Decoders of images and recordings leave Python's lock while they unpack pixels and samples, so that large files take as
many cores as there are. Of tiny ones, most time is Python's own: threads change nothing for them.
"""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from numpy.typing import NDArray

from innerloop_learner.media import UnreadableAudioError, UnreadableImageError
from innerloop_trainer.data.file_tree import FileTree, UnreadableFileError

MOST_THREADS = 8
"""Most threads that decode: an image of 50 million pixels takes up to 600 MB while it is decoded."""

PART_FILES, PART_BYTES = 64, 4 * 2**20
"""Files that a thread takes together, at most, and the bytes of files after which it takes no more: handing over costs
as much as decoding a tiny file, and what is read ahead must fit in memory."""

Decode = Callable[[bytes], NDArray[Any]]
Content = bytes | str
"""The content of a file, or what is wrong with it."""


@dataclass(frozen=True)
class DecodedFile:
    """An example, and the SHA-256 of the file that it was made of."""

    example: NDArray[Any]
    digest: bytes


def decoded_files(tree: FileTree, paths: Sequence[PurePosixPath], decode: Decode) -> Iterator[DecodedFile | str]:
    """Give the example of each file, in order, or what is wrong with the file, which is to follow its name.

    Args:
        tree: folder or archive that holds the files; it is read by one thread, since an archive has one position.
        paths: paths of the files.
        decode: function from the content of a file to its example, called in several threads.
    """
    threads = min(
        MOST_THREADS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    under_way: deque[Future[list[DecodedFile | str]]] = deque()
    with ThreadPoolExecutor(threads, "decoder") as pool:
        try:
            for part in _parts(tree, paths):
                under_way.append(pool.submit(_decode_part, part, decode))
                if len(under_way) > threads:
                    yield from under_way.popleft().result()
            while under_way:
                yield from under_way.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _parts(tree: FileTree, paths: Sequence[PurePosixPath]) -> Iterator[list[Content]]:
    """The contents of the files, some at a time."""
    part: list[Content] = []
    size = 0
    for path in paths:
        part.append(_content(tree, path))
        size += len(part[-1])
        if len(part) == PART_FILES or size >= PART_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _content(tree: FileTree, path: PurePosixPath) -> Content:
    try:
        return tree.read(path)
    except UnreadableFileError as error:
        return str(error)


def _decode_part(contents: Sequence[Content], decode: Decode) -> list[DecodedFile | str]:
    return [content if isinstance(content, str) else _decoded(content, decode) for content in contents]


def _decoded(content: bytes, decode: Decode) -> DecodedFile | str:
    try:
        return DecodedFile(decode(content), hashlib.sha256(content).digest())
    except (UnreadableImageError, UnreadableAudioError) as error:
        return str(error)

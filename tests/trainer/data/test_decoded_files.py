"""Files are decoded by several threads, and come in order."""

import hashlib
import threading
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from numpy.typing import NDArray

from innerloop_learner.media import UnreadableImageError
from innerloop_trainer.data import decoded_files as module
from innerloop_trainer.data.decoded_files import PART_FILES, DecodedFile, decoded_files
from innerloop_trainer.data.file_tree import FolderTree

COUNT = 3 * PART_FILES + 5


@pytest.fixture
def folder(tmp_path: Path) -> FolderTree:
    """Files that hold their own numbers."""
    for number in range(COUNT):
        (tmp_path / f"{number:05}").write_text(str(number))
    return FolderTree(tmp_path)


def test_examples_come_in_the_order_of_the_files_with_digests_of_their_content(folder: FolderTree) -> None:
    threads = set()

    def decode(content: bytes) -> NDArray[np.int64]:
        threads.add(threading.current_thread())
        return np.array([int(content)])

    found = list(decoded_files(folder, folder.files, decode))
    assert [int(each.example[0]) for each in found if isinstance(each, DecodedFile)] == list(range(COUNT))
    digests = [each.digest for each in found if isinstance(each, DecodedFile)]
    assert digests == [hashlib.sha256(str(number).encode()).digest() for number in range(COUNT)]
    assert threading.main_thread() not in threads
    assert not any(thread.is_alive() for thread in threads)


def test_what_is_wrong_with_a_file_stands_in_its_place(folder: FolderTree) -> None:
    def decode(content: bytes) -> NDArray[np.int64]:
        if content == b"7":
            raise UnreadableImageError("is damaged")
        return np.array([int(content)])

    paths = [*folder.files[:9], PurePosixPath("nowhere")]
    found = list(decoded_files(folder, paths, decode))
    assert [each for each in found if isinstance(each, str)] == [
        "is damaged",
        "can't be read (No such file or directory)",
    ]
    assert isinstance(found[7], str)
    assert isinstance(found[9], str)


def test_an_unforeseen_error_of_a_decoder_ends_reading(folder: FolderTree) -> None:
    def decode(content: bytes) -> NDArray[np.int64]:
        raise ZeroDivisionError(content)

    with pytest.raises(ZeroDivisionError):
        list(decoded_files(folder, folder.files, decode))


def test_no_more_is_read_ahead_than_threads_can_take(folder: FolderTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_THREADS", 1)
    monkeypatch.setattr(module, "PART_BYTES", 4)
    read: list[PurePosixPath] = []
    whole = FolderTree.read

    def counting(tree: FolderTree, path: PurePosixPath) -> bytes:
        read.append(path)
        return whole(tree, path)

    monkeypatch.setattr(FolderTree, "read", counting)
    found = decoded_files(folder, folder.files, lambda content: np.array([int(content)]))
    next(found)
    assert len(read) <= 8
    found.close()

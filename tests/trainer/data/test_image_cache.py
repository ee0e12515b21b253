import os
import pwd
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from innerloop_trainer.data.cache import cached
from innerloop_trainer.data.class_digests import digest_arrays
from innerloop_trainer.data.example_set import ExampleSet

COUNTS, PIXELS = np.array([2, 1]), np.arange(3 * 3 * 4, dtype=np.uint8).reshape(3, 1, 3, 4)
IMAGES = ExampleSet(("ä", "b"), COUNTS, PIXELS, digest_arrays(COUNTS, PIXELS))


class Builder:
    """Counts how often it is called."""

    calls = 0

    def __call__(self) -> ExampleSet:
        self.calls += 1
        return IMAGES


def check(images: ExampleSet) -> None:
    assert (images.names, images.digests) == (IMAGES.names, IMAGES.digests)
    np.testing.assert_array_equal(images.counts, IMAGES.counts)
    np.testing.assert_array_equal(images.examples, IMAGES.examples)


def test_the_same_data_is_built_once_and_other_data_again() -> None:
    build = Builder()
    for _ in range(3):
        check(cached("toy", {"files": [["a", 1, 2]]}, build))
    assert build.calls == 1
    check(cached("toy", {"files": [["a", 1, 3]]}, build))
    assert build.calls == 2


def _truncate(content: bytes) -> bytes:
    return content[:-5]


def _flip_a_pixel(content: bytes) -> bytes:
    position = content.rindex(IMAGES.examples.tobytes())
    return content[: position + 3] + b"\xff" + content[position + 4 :]


def _garbage(content: bytes) -> bytes:
    return b"?" * len(content)


def _empty(_: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("damage", [_truncate, _flip_a_pixel, _garbage, _empty])
def test_a_damaged_cache_file_is_built_again_and_replaced(damage: Callable[[bytes], bytes], cache_home: Path) -> None:
    build = Builder()
    cached("toy", {}, build)
    (file,) = (cache_home / "innerloop").iterdir()
    file.write_bytes(damage(file.read_bytes()))
    for _ in range(2):
        check(cached("toy", {}, build))
    assert build.calls == 2
    assert list((cache_home / "innerloop").iterdir()) == [file]


def test_a_cache_folder_that_cannot_be_written_is_done_without_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way of a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for _ in range(2):
        check(cached("toy", {}, Builder()))
    (said,) = caplog.messages
    assert "file/innerloop can't be written" in said
    assert "set XDG_CACHE_HOME" in said


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No home folder and no name; the folder of temporary files."""
    for variable in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(variable)

    def unknown(_: object) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_user_without_home_and_name_has_a_cache_of_his_own_among_temporary_files(nobody: Path) -> None:
    build = Builder()
    for _ in range(2):
        check(cached("toy", {}, build))
    assert build.calls == 1
    (folder,) = nobody.iterdir()
    assert (folder.name, folder.stat().st_mode & 0o777) == (f"innerloop-{os.getuid()}", 0o700)


def test_a_cache_that_others_can_write_to_is_never_read(nobody: Path, caplog: pytest.LogCaptureFixture) -> None:
    build = Builder()
    check(cached("toy", {}, build))
    (folder,) = nobody.iterdir()
    folder.chmod(0o777)
    check(cached("toy", {}, build))
    assert build.calls == 2
    assert "not a folder of this user alone" in caplog.text

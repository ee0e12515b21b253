"""Decoded images and encoded examples kept on disk, so that a data set is decoded and encoded once.

A cache file is named after a digest of everything that its content depends on, so a stale file is never read. The cache
only saves time: a damaged file is built again, and a folder that can't be written is warned of once.
"""

import errno
import hashlib
import json
import logging
import os
import stat
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import astuple
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from innerloop_trainer.data.class_digests import ClassDigest
from innerloop_trainer.data.example_set import ExampleSet

FORMAT_VERSION = 5

logger = logging.getLogger(__name__)


def cached(source: str, identity: Mapping[str, Any], build: Callable[[], ExampleSet]) -> ExampleSet:
    """The result of `build`, read from disk if it was built before.

    Args:
        source: name of the source, with which the file's name begins.
        identity: everything that the result depends on, as plain data: files with sizes and times, and options.
        build: function that decodes, generates or encodes the examples.
    """
    key = json.dumps([FORMAT_VERSION, PIL.__version__, identity], sort_keys=True)
    path = cache_folder() / f"{source}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.safetensors"
    try:
        return _read(path)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        examples = build()
    try:
        _write(path, examples)
    except OSError as error:
        say_once(path.parent, error.strerror or str(error))
    return examples


def cache_folder() -> Path:
    """The folder of decoded data: `innerloop` in the user's cache folder.

    A user without a home folder, as containers have under a number without a name, gets one of the number's own among
    temporary files.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    if Path(given).is_absolute():
        return Path(given) / "innerloop"
    try:
        return Path("~/.cache/innerloop").expanduser()
    except RuntimeError:  # neither HOME nor an entry among the users
        return Path(tempfile.gettempdir()) / f"innerloop-{os.getuid()}"


@cache
def say_once(folder: Path, reason: str) -> None:
    """Warn that the cache can't be written, the first time."""
    logger.warning("%s can't be written (%s), so data is decoded anew each time; set XDG_CACHE_HOME", folder, reason)


def check_owner(folder: Path) -> None:
    """Refuse a folder among temporary files that is not the user's own: anybody may make one of its name there.

    Raises:
        PermissionError: others own it or can write to it.
    """
    if folder.parent != Path(tempfile.gettempdir()):
        return
    found = folder.lstat()
    if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or not stat.S_ISDIR(found.st_mode):
        raise PermissionError(errno.EPERM, "it is not a folder of this user alone", str(folder))


def _read(path: Path) -> ExampleSet:
    check_owner(path.parent)
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        examples, counts = file.get_tensor("examples"), file.get_tensor("counts")
        speakers = file.get_tensor("speakers") if "speakers" in file.keys() else None  # noqa: SIM118 - no mapping
    if zlib.crc32(examples.data) != int(metadata["checksum"]):
        raise ValueError("examples differ from what was written")
    digests = tuple(ClassDigest(tuple(known_by), content) for known_by, content in json.loads(metadata["digests"]))
    return ExampleSet(tuple(json.loads(metadata["names"])), counts, examples, digests, speakers)


def _write(path: Path, content: ExampleSet) -> None:
    examples = np.ascontiguousarray(content.examples)
    metadata = {
        "names": json.dumps(content.names),
        "digests": json.dumps([astuple(each) for each in content.digests]),
        "checksum": str(zlib.crc32(examples.data)),
    }
    tensors = {"examples": examples, "counts": content.counts}
    if content.speakers is not None:
        tensors["speakers"] = content.speakers
    write_whole(path, save(tensors, metadata))


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that readers never see half of it, even if the process is killed meanwhile.

    Raises:
        OSError: the folder can't be written, or is not the user's own.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    check_owner(path.parent)
    handle, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(scratch).replace(path)
    finally:
        Path(scratch).unlink(missing_ok=True)

"""A power loss at any moment, after which the disk has an arbitrary part of what was not synced: nothing is lost."""

import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from power_log_writer import adaptation

from innerloop_server.adaptations.stores.interface import DamagedError, StoreUnusableError
from innerloop_server.adaptations.stores.sqlite import SqliteStore
from innerloop_server.domain.errors import StoreUnavailableError

HERE = Path(__file__).parent
SECTOR = 512
LOST, TORN = 0.5, 0.2
"""Shares of unsynced writes that never reach the disk, and of those that do of which only a part does."""


@pytest.fixture(scope="module")
def log_of(tmp_path_factory):
    """Runs the writer; gives the log of everything that it did: (operation, file, offset, content)."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("noting what a process writes takes Linux and a C compiler")
    library = tmp_path_factory.mktemp("preload") / "power_log.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, HERE / "power_log.c", "-ldl"], check=True)

    def run(durability):
        folder = tmp_path_factory.mktemp("power")
        (folder / "files").mkdir()
        environment = {
            **os.environ,
            "LD_PRELOAD": str(library),
            "POWER_FOLDER": str(folder / "files"),
            "POWER_LOG": str(folder / "log"),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        command = [sys.executable, HERE / "power_log_writer.py", folder / "files", durability]
        subprocess.run(command, check=True, env=environment, timeout=120)
        return [*read_log((folder / "log").read_bytes())]

    return run


def read_log(content):
    at = 0
    while at < len(content):
        end = content.index(b"\n", at)
        operation, name, offset, length = content[at:end].decode().split(" ")
        at = end + 1 + (int(length) if operation == "write" else 0)
        yield operation, name, int(offset), content[end + 1 : at]


def after_power_loss(log, chance):
    """Content of each file if the power goes after these operations, and what had been answered."""
    files, unsynced = {}, {}
    for entry in log:
        operation, name, *_ = entry
        if operation == "sync":
            for waiting in unsynced.pop(name, ()):
                apply(files, waiting)
        else:  # that a file is gone is written with its folder
            unsynced.setdefault("." if operation == "unlink" else name, []).append(entry)
    answers = b"".join(content for operation, _, _, content in unsynced.pop("answers", ()) if operation == "write")
    for entry in (entry for waiting in unsynced.values() for entry in waiting):
        if chance.random() >= LOST:
            operation, name, offset, content = entry
            if chance.random() < TORN:
                content = content[: chance.randrange(len(content) + 1) // SECTOR * SECTOR]
            apply(files, (operation, name, offset, content))
    return files, answers.decode()


def apply(files, entry):
    operation, name, offset, content = entry
    if operation == "unlink":
        files.pop(name, None)
        return
    file = files.setdefault(name, bytearray())
    if operation == "truncate":
        del file[offset:]
    file.extend(bytes(max(offset - len(file), 0)))
    if operation == "write":
        file[offset : offset + len(content)] = content


async def lost_after(log, chance, folder):
    """Names of adaptations that are not as they were answered, after a power loss at a random moment."""
    files, answers = after_power_loss(log[: chance.randrange(len(log) + 1)], chance)
    folder.mkdir()
    for name, content in files.items():
        if not name.endswith(("-shm", ".lock")):
            (folder / name).write_bytes(content)
    added, replacing, replaced, deleting, deleted = (
        set(re.findall(rf"^{word} (\S+)$", answers, re.MULTILINE)) for word in WORDS
    )
    store = SqliteStore(folder / "store")
    try:
        await store.open()
    except StoreUnusableError:
        return added | deleted
    try:
        wrong = {name for name in added - replacing - deleting if await kept(store, name) != adaptation(name)}
        wrong |= {name for name in replaced if await kept(store, name) != adaptation(name, 2)}
        wrong |= {name for name in replacing - replaced if await kept(store, name) not in either(name)}
        wrong |= {name for name in deleted if await kept(store, name) is not None}
        return wrong | {name for name in deleting - deleted if await kept(store, name) not in (None, adaptation(name))}
    finally:
        await store.close()


WORDS = ("added", "replacing", "replaced", "deleting", "deleted")


def either(name):
    return adaptation(name, 1), adaptation(name, 2)


async def kept(store, name):
    try:
        return await store.get(name)
    except (DamagedError, StoreUnavailableError):
        return "unreadable"


async def losses(log, moments, tmp_path):
    found = [await lost_after(log, random.Random(seed), tmp_path / str(seed)) for seed in range(moments)]
    return set().union(*found)


@pytest.mark.parametrize("moments", [12, pytest.param(500, marks=pytest.mark.slow)])
async def test_nothing_that_was_answered_is_lost_with_the_power(log_of, moments, tmp_path):
    log = log_of("through")
    assert [entry[:2] for entry in log].count(("write", "store")) > 100, "some of it has left the journal"
    assert not await losses(log, moments, tmp_path)


async def test_without_waiting_for_the_disk_it_would_be(log_of, tmp_path):
    assert await losses(log_of("none"), 12, tmp_path), "this test finds what is lost"

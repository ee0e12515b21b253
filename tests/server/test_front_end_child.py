"""A front end as the engine process sees it: what it is told first, and what is left of it when it can't be started."""

import asyncio
import os
import socket
import subprocess
from pathlib import Path

import pytest
from fakes import describe

from innerloop_server.domain.model_versions import ModelVersions
from innerloop_server.domain.models import ModelEntry, ModelState
from innerloop_server.frontend import child, messages
from innerloop_server.frontend.child import FrontEnd
from innerloop_server.ipc.link import Link
from innerloop_server.ipc.segment import Segment

SIZE = 1 << 20


def start_message(entries=()):
    return messages.Start("{}", 0, "/tmp", tuple(entries), False, True)


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def its_end(monkeypatch):
    """The socket of a front end whose process does nothing; empty until it was launched."""
    ends = []

    def launch(link, segment):
        del segment
        ends.append(socket.socket(fileno=os.dup(link)))
        return subprocess.Popen(["sleep", "60"])

    monkeypatch.setattr(child, "_launch", launch)
    yield ends
    for end in ends:
        end.close()


async def test_a_front_end_hears_of_every_model_whenever_it_changes(its_end):
    entries, received = [], []
    front_end = FrontEnd(None, SIZE, lambda: None)
    running = asyncio.create_task(front_end.run(lambda: start_message(entries)))
    for number in range(20):  # some before it can be told anything, some after
        name = f"model {number}"
        entries.append(ModelVersions(name, (ModelEntry(name, ModelState.READY, describe()),)))
        front_end.send(messages.ModelChanged(entries[-1]))
        await asyncio.sleep(0)
    link = Link(messages.ToFrontEnd, received.append, lambda: None)
    await link.open(its_end.pop())
    while len(received) < 1 or received[-1] != messages.ModelChanged(entries[-1]):
        await asyncio.sleep(0.01)
    link.close()
    await running
    first, *later = received
    assert isinstance(first, messages.Start)
    assert [*first.models, *(message.model for message in later)] == entries
    assert first.models
    assert later


async def test_a_front_end_that_can_not_be_started_leaves_no_descriptor_open(monkeypatch):
    def refuse(*descriptors):
        del descriptors
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(child, "_launch", refuse)
    before = open_descriptors()
    for _ in range(3):
        front_end = FrontEnd(None, SIZE, lambda: None)
        with pytest.raises(BlockingIOError):
            await front_end.run(start_message)
        del front_end
    assert open_descriptors() == before


def test_shared_memory_that_can_not_be_had_leaves_no_descriptor_open(monkeypatch):
    def refuse(*_):
        raise OSError("no memory")

    before = open_descriptors()
    for place in ("os.ftruncate", "fcntl.fcntl", "mmap.mmap"):
        with monkeypatch.context() as patched:
            patched.setattr(place, refuse)
            with pytest.raises(OSError, match="no memory"):
                Segment.create(SIZE)
    assert open_descriptors() == before


async def test_a_front_end_from_which_nothing_is_heard_any_more_is_ended(its_end, monkeypatch):
    monkeypatch.setattr(child, "ASK_SECONDS", 0.1)
    front_end = FrontEnd(None, SIZE, lambda: None)
    running = asyncio.create_task(front_end.run(start_message))
    while not its_end:
        await asyncio.sleep(0.01)
    link = Link(messages.ToFrontEnd, lambda _: None, lambda: None)
    await link.open(its_end.pop())
    await asyncio.sleep(0.7)
    assert not running.done(), "it may take its time to start"
    for _ in range(20):
        link.send(messages.Listening())
        await asyncio.sleep(0.05)
    assert not running.done(), "it is heard of"
    assert await asyncio.wait_for(running, 5) < 0
    link.close()

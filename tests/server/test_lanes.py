"""Lanes: work on threads, and work that other processes do while the event loop goes on."""

import asyncio
import socket
import threading

import pytest

from innerloop_server.engine.interface import RemoteError
from innerloop_server.engine.lanes import Lanes
from innerloop_server.engine.waiting import finish, readable


@pytest.fixture
async def lanes():
    lanes = Lanes(2)
    yield lanes
    assert await lanes.stop(5)


class Process:
    """The two ends of a link to a process that answers when the test says so."""

    def __init__(self):
        self.ours, self.its = socket.socketpair()
        self.lane = None

    def elsewhere(self, lane):
        self.lane = lane
        return self._read()

    def answer(self, content=b"result"):
        self.its.send(content)

    async def _read(self):
        await readable(self.ours)
        content = self.ours.recv(100)
        if not content:
            raise RemoteError("it has ended")
        return content


@pytest.fixture
def process():
    process = Process()
    yield process
    process.ours.close()
    process.its.close()


def submit(lanes, run=lambda: b"here", elsewhere=lambda _: None):
    """Submit work; returns a future of its result."""
    future = asyncio.get_running_loop().create_future()
    lanes.submit(run, future.set_result, elsewhere)
    return future


async def test_the_event_loop_goes_on_while_another_process_works(lanes, process):
    result = submit(lanes, elsewhere=process.elsewhere)
    assert process.lane == 0
    for _ in range(3):
        await asyncio.sleep(0)
    assert not result.done()
    process.answer()
    assert await asyncio.wait_for(result, 5) == b"result"


async def test_work_that_waits_several_times_goes_on_each_time(lanes, process):
    read = []

    async def twice():
        read.append(await process._read())
        return read[0] + await process._read()

    result = submit(lanes, elsewhere=lambda _: twice())
    process.answer(b"one ")
    while not read:
        await asyncio.sleep(0)
    assert not result.done()
    process.answer(b"two")
    assert await asyncio.wait_for(result, 5) == b"one two"


async def test_a_lane_whose_process_works_takes_nothing_else(lanes, process):
    begun = []
    first = submit(lanes, elsewhere=process.elsewhere)
    gate = threading.Event()
    second = submit(lanes, gate.wait)
    third = submit(lanes, elsewhere=lambda lane: begun.append(lane))
    assert not begun
    process.answer()
    await asyncio.wait_for(first, 5)
    assert begun == [0]
    assert await asyncio.wait_for(third, 5) == b"here", "its coroutine was None"
    gate.set()
    await asyncio.wait_for(second, 5)


async def test_what_another_process_failed_to_do_is_done_by_the_lanes_thread(lanes, process):
    result = submit(lanes, lambda: threading.current_thread().name, process.elsewhere)
    process.its.close()
    assert await asyncio.wait_for(result, 5) == "lane0"


async def test_work_that_ends_at_its_first_step_may_come_in_any_number(lanes):
    async def at_once():
        return b"result"

    results = []

    def submit_more(_):
        results.append(_)
        if len(results) < 5000:
            lanes.submit(None, submit_more, lambda _: at_once())

    submit_more(None)
    assert len(results) == 5000


async def test_what_comes_after_work_has_nothing_to_do_with_its_result(lanes, process):
    """A result is what a coroutine raises to say that it has ended; it must not stick to errors that come later."""
    contexts = []

    def note(_):
        try:
            raise ValueError
        except ValueError as error:
            contexts.append(error.__context__)

    lanes.submit(None, note, process.elsewhere)
    process.answer()
    while not contexts:
        await asyncio.sleep(0)
    assert contexts == [None]


async def test_lanes_stop_when_other_processes_are_done(process):
    lanes = Lanes(2)
    result = submit(lanes, elsewhere=process.elsewhere)
    asyncio.get_running_loop().call_later(0.1, process.answer)
    assert await lanes.stop(5)
    assert result.done()


async def test_lanes_that_do_not_end_in_time_are_told_of(process):
    lanes = Lanes(1)
    submit(lanes, elsewhere=process.elsewhere)
    assert not await lanes.stop(0.05)
    process.answer()
    assert await lanes.stop(5)


def test_a_thread_blocks_where_an_event_loop_would_go_on(process):
    threading.Timer(0.05, process.answer).start()
    assert finish(process._read()) == b"result"


def test_what_a_coroutine_raises_on_a_thread_reaches_the_caller(process):
    process.its.close()
    with pytest.raises(RemoteError):
        finish(process._read())

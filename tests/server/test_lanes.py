"""Lanes: batches on threads, and batches that worker processes compute while the event loop goes on."""

import asyncio
import gc
import socket
import threading
import weakref
from dataclasses import dataclass, field

import numpy as np
import pytest
from fakes import RecordingModel, describe

from innerloop_server.domain.timings import Operation
from innerloop_server.engine.interface import BatchResult, MemoryFullError, PredictBatch, Worker, WorkerError
from innerloop_server.scheduling import lanes as module
from innerloop_server.scheduling.lanes import Lanes

BATCH = PredictBatch([], [])


class FakeWorker(Worker):
    """The two ends of a link to a process that says what the test has it say."""

    def __init__(self, *, starts=True):
        self.ours, self.its = socket.socketpair()
        self.stopped, self.alive, self.beaten = False, True, 0
        if starts:
            self.say(b"started")

    def fileno(self):
        return self.ours.fileno()

    def say(self, content=b"computed"):
        self.its.send(content)

    def end(self):
        self.its.close()

    def receive(self):
        content = self.ours.recv(100)
        if not content:
            raise WorkerError("it has ended")
        if content == b"nonsense":
            raise ValueError("not a reply")
        return content

    def beats(self):
        self.beaten += self.alive
        return self.beaten

    def stop(self):
        self.stopped = True
        self.ours.close()
        self.its.close()


@dataclass(eq=False)
class FakeModel(RecordingModel):
    """A model that workers compute; notes on which thread what is done."""

    computed_by_workers: bool = True
    size: float = 0
    done: list = field(default_factory=list)
    full: bool = False

    def _note(self, what):
        self.done.append((what, threading.current_thread().name))

    def compute(self, batch, *, alone):
        self._note("alone" if alone else "beside others")
        return BatchResult([], [batch], {Operation.PREDICT: 0.0})

    def bytes_to_copy(self, batch, worker):
        del batch, worker
        return self.size

    def send(self, batch, worker):
        del batch, worker
        self._note("send")

    def take(self, batch, reply, worker):
        del batch, worker
        self._note("take")
        if self.full:
            raise MemoryFullError
        if reply == b"failed":
            raise WorkerError("it can't")
        return BatchResult([], [reply], {})


@pytest.fixture
def model():
    return FakeModel(describe())


@pytest.fixture
async def make_lanes():
    """Makes lanes with workers; also returns the list of all workers that were started."""
    made, workers = [], []

    async def make(count=1, **worker):
        def start():
            workers.append(FakeWorker(**worker))
            return workers[-1]

        made.append(Lanes(count, start))
        await made[-1].start()
        return made[-1], workers

    yield make
    for lanes in made:
        assert await lanes.stop(5)
    assert all(worker.stopped for worker in workers)


@pytest.fixture(autouse=True)
def briefly(monkeypatch):
    monkeypatch.setattr(module, "QUIET_SECONDS", 0.05)
    monkeypatch.setattr(module, "WORKER_START_SECONDS", 0.05)


async def compute(lanes, model, meanwhile=lambda: None, *, busy=True):
    """Have a lane compute; returns the one answer. While `busy`, something else is computed beside it."""
    lane = await lanes.take()
    try:
        if not busy:
            return (await lane.compute(model, BATCH)).answers[0]
        with lane._side_by_side.counted():
            computing = asyncio.create_task(lane.compute(model, BATCH))
            await asyncio.sleep(0)
            meanwhile()
            return (await asyncio.wait_for(computing, 5)).answers[0]
    finally:
        lanes.give_back(lane)


async def test_a_batch_alone_is_computed_by_the_lanes_thread_and_one_beside_others_by_its_worker(make_lanes, model):
    lanes, (worker,) = await make_lanes()
    assert await compute(lanes, model, busy=False) is BATCH
    assert await compute(lanes, model, worker.say) == b"computed"
    await asyncio.sleep(0.06)
    assert await compute(lanes, model, busy=False) is BATCH
    assert [what for what, _ in model.done[:3]] == ["alone", "send", "take"]
    assert model.done[-1] == ("alone", "lane0")


async def test_a_moment_after_batches_ran_side_by_side_one_that_comes_alone_goes_to_the_worker(make_lanes, model):
    lanes, (worker,) = await make_lanes()
    await compute(lanes, model, worker.say)
    worker.say()
    assert await compute(lanes, model, busy=False) == b"computed"


async def test_a_moment_after_two_batches_is_counted_from_the_end_of_the_first_of_them():
    side_by_side = module.SideBySide()
    with side_by_side.counted(), side_by_side.counted() as alone:
        assert not alone
        await asyncio.sleep(0.06)
    with side_by_side.counted() as alone:
        assert not alone
    await asyncio.sleep(0.06)
    with side_by_side.counted() as alone:
        assert alone


async def test_the_event_loop_goes_on_while_a_worker_computes(make_lanes, model):
    lanes, (worker,) = await make_lanes()
    computing = asyncio.create_task(compute(lanes, model))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not computing.done()
    worker.say()
    assert await asyncio.wait_for(computing, 5) == b"computed"
    assert {thread for _, thread in model.done} == {threading.main_thread().name}


async def test_what_would_hold_up_the_event_loop_is_copied_by_the_lanes_thread(make_lanes, model):
    lanes, (worker,) = await make_lanes()
    model.size = module.MOST_BYTES_ON_LOOP + 1
    assert await compute(lanes, model, worker.say) == b"computed"
    assert model.done == [("send", "lane0"), ("take", "lane0")]


@pytest.mark.parametrize("computed_by_workers", [True, False])
async def test_models_that_workers_can_not_compute_are_computed_by_threads(make_lanes, model, computed_by_workers):
    lanes, _ = await make_lanes(starts=computed_by_workers is False)
    model.computed_by_workers = computed_by_workers
    assert await compute(lanes, model) is BATCH, "its worker has not started, or computes no such models"
    assert model.done == [("beside others", "lane0")]


async def test_what_a_worker_fails_to_compute_is_computed_by_the_lanes_thread(make_lanes, model):
    lanes, workers = await make_lanes()
    assert await compute(lanes, model, lambda: workers[0].say(b"failed")) is BATCH
    assert len(workers) == 1, "the process goes on"
    assert await compute(lanes, model, workers[0].say) == b"computed"


@pytest.mark.parametrize("end", [FakeWorker.end, lambda worker: worker.say(b"nonsense")], ids=["ends", "nonsense"])
async def test_a_worker_that_ends_or_talks_nonsense_takes_no_batch_with_it_and_is_replaced(make_lanes, model, end):
    lanes, workers = await make_lanes()
    assert await compute(lanes, model, lambda: end(workers[0])) is BATCH
    assert workers[0].stopped
    await asyncio.sleep(0.01)
    assert await compute(lanes, model, workers[1].say) == b"computed"


async def ends(worker, lanes, model):
    """Have a worker end; the lane notices when it computes something else, and may start another worker."""
    worker.end()
    await asyncio.sleep(0.01)
    assert await compute(lanes, model) is BATCH


async def test_workers_that_end_before_they_can_compute_are_replaced_a_few_times(make_lanes, model):
    lanes, workers = await make_lanes(starts=False)
    for _ in range(5):
        await ends(workers[-1], lanes, model)
    assert len(workers) == module.MOST_FAILED_STARTS


async def test_a_worker_that_ends_before_it_can_compute_leaves_the_lane_another_that_can(make_lanes, model):
    lanes, workers = await make_lanes(starts=False)
    for _ in range(4):
        await ends(workers[-1], lanes, model)
        workers[-1].say(b"started")
        await asyncio.sleep(0.01)
    assert await compute(lanes, model, workers[-1].say) == b"computed"


async def test_a_lane_without_room_for_another_process_computes_by_its_thread(model):
    def refuse():
        raise OSError("too many open files")

    lanes = Lanes(2, refuse)
    await lanes.start()
    assert await compute(lanes, model) is BATCH
    assert await lanes.stop(5)


async def test_a_worker_whose_states_have_no_room_has_not_failed(make_lanes, model):
    lanes, (worker,) = await make_lanes()
    model.full = True
    with pytest.raises(MemoryFullError):
        await compute(lanes, model, worker.say)


async def test_lanes_are_taken_in_order_and_whoever_waits_gets_the_next_that_is_free():
    lanes = Lanes(2)
    first, second = await lanes.take(), await lanes.take()
    assert (first.number, second.number) == (0, 1)
    left, third = asyncio.create_task(lanes.take()), asyncio.create_task(lanes.take())
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.sleep(0)
    lanes.give_back(second)
    assert (await asyncio.wait_for(third, 5)).number == 1
    for lane in (first, second):
        lanes.give_back(lane)
    assert await lanes.stop(5)


async def test_one_who_leaves_when_a_lane_was_his_already_gives_it_back():
    lanes = Lanes(1)
    lane = await lanes.take()
    waiting = asyncio.create_task(lanes.take())
    await asyncio.sleep(0)
    lanes.give_back(lane)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert await lanes.stop(5)


async def test_a_function_is_called_on_a_lanes_thread_and_what_it_raises_reaches_the_caller():
    lanes = Lanes(1)
    assert await lanes.call(lambda: threading.current_thread().name) == "lane0"
    with pytest.raises(ZeroDivisionError):
        await lanes.call(lambda: 1 / 0)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await asyncio.wait_for(lanes.call(lambda: next(iter(()))), 5)
    assert await lanes.stop(5)


async def test_a_batch_that_fails_is_freed_at_once(make_lanes, model):
    lanes, _ = await make_lanes()
    model.compute = lambda *_, **__: 1 / 0
    lane, query = await lanes.take(), np.zeros(1)
    batch, freed = PredictBatch([], [query]), weakref.ref(query)
    gc.disable()
    try:
        with pytest.raises(ZeroDivisionError):
            await lane.compute(model, batch)
        del query, batch
        await asyncio.sleep(0.05)
        assert freed() is None
    finally:
        gc.enable()
        lanes.give_back(lane)


async def test_a_worker_that_has_ended_is_freed_at_once(model):
    freed, present = [], []

    def start():
        present[:] = [FakeWorker()]
        freed.append(weakref.ref(present[0]))
        return present[0]

    lanes = Lanes(1, start)
    await lanes.start()
    gc.disable()
    try:
        for _ in range(2):
            assert await compute(lanes, model, lambda: present[0].end()) is BATCH
            await asyncio.sleep(0.01)
        assert [worker() is None for worker in freed] == [True, True, False]
    finally:
        gc.enable()
        assert await lanes.stop(5)


async def test_lanes_stop_once_what_they_compute_is_done(make_lanes, model):
    lanes, (worker,) = await make_lanes()
    computing = asyncio.create_task(compute(lanes, model))
    asyncio.get_running_loop().call_later(0.1, worker.say)
    await asyncio.sleep(0)
    assert await lanes.stop(5)
    assert computing.done()


async def test_lanes_that_do_not_end_in_time_are_told_of():
    lanes, gate = Lanes(1), threading.Event()
    calling = asyncio.create_task(lanes.call(gate.wait))
    await asyncio.sleep(0.01)
    assert not await lanes.stop(0.05)
    gate.set()
    await calling
    assert await lanes.stop(5)


@pytest.fixture
def looking(monkeypatch):
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)


@pytest.mark.usefixtures("looking")
async def test_a_worker_that_gives_no_sign_of_life_is_replaced_and_its_batch_computed_by_the_thread(make_lanes, model):
    lanes, workers = await make_lanes()

    def freeze():
        workers[0].alive = False

    assert await compute(lanes, model, freeze) is BATCH
    assert len(workers) == 2
    assert workers[0].stopped
    await asyncio.sleep(0.2)
    assert await compute(lanes, model, workers[1].say) == b"computed", "it is left alone"


@pytest.mark.usefixtures("looking")
async def test_a_worker_that_goes_on_with_what_nobody_waits_for_is_replaced(make_lanes, model):
    lanes, workers = await make_lanes()
    lane = await lanes.take()
    with lane._side_by_side.counted():
        computing = asyncio.create_task(lane.compute(model, BATCH))
        await asyncio.sleep(0.3)
        assert not computing.done(), "a batch may take as long as someone waits for it"
        lane.abandon()
        await asyncio.wait_for(computing, 5)
    lanes.give_back(lane)
    assert len(workers) == 2

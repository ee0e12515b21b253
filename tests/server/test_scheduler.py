"""Scheduling: batches, fairness, admission, and requests that nobody waits for any more."""

import asyncio
import doctest
import gc
import math
import threading
import time
import weakref
from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from fakes import FakeState, RecordingModel, describe

from innerloop_server.domain.answers import Answers
from innerloop_server.domain.callers import Caller, OwnerLimits
from innerloop_server.domain.deadline import Deadline
from innerloop_server.domain.errors import DeadlinePassedError, OverloadedError
from innerloop_server.domain.tasks import SupportSet
from innerloop_server.domain.timings import Operation
from innerloop_server.engine.interface import AbandonedError, AdaptedTask, MemoryFullError
from innerloop_server.scheduling import admission, batch_times, fair_turns, policy
from innerloop_server.scheduling.admission import QueueLimits
from innerloop_server.scheduling.batch_times import LATEST_BATCHES, MOST_BUCKETS
from innerloop_server.scheduling.buckets import adapt_bucket, size_range
from innerloop_server.scheduling.job import AdaptJob, PredictJob
from innerloop_server.scheduling.lanes import Lanes
from innerloop_server.scheduling.operation_queue import OperationQueue
from innerloop_server.scheduling.policy import BatchLimits, BatchPolicy
from innerloop_server.scheduling.queue import FairQueue
from innerloop_server.scheduling.scheduler import Scheduler

EVEN = {Operation.ADAPT: 1.0, Operation.PREDICT: 1.0}
POLICY = BatchPolicy(BatchLimits(tasks=8, size_bytes=10**6), lanes=1)


@pytest.fixture
async def lane():
    lane = Lanes(1)
    yield lane
    await lane.stop(5)


@pytest.fixture
async def make_lanes():
    made = []

    def make(count):
        made.append(Lanes(count))
        return made[-1]

    yield make
    for lanes in made:
        await lanes.stop(5)


@pytest.fixture
def make_scheduler(lane, metrics):
    made = []

    def make(tasks=8, size_bytes=10**6, waiting=100, waiting_bytes=10**6, lanes=lane, side_by_side=1, weights=EVEN):
        limits = QueueLimits(waiting, waiting_bytes, seconds=60.0)
        made.append(Scheduler(lanes, side_by_side, BatchLimits(tasks, size_bytes), limits, weights, metrics))
        return made[-1]

    yield make
    for scheduler in made:
        scheduler.stop()


@pytest.fixture
async def scheduler(make_scheduler):
    return make_scheduler()


@pytest.fixture
def gated(fake_model):
    """A model whose computations wait until its gate is opened."""
    model = fake_model()
    model.gate = threading.Event()
    yield model
    model.gate.set()


def adapt_job(model, examples=5, steps=1, deadline=None, query=None):
    support = SupportSet(np.zeros((examples, 1, 8, 8), np.uint8), np.zeros(examples, np.int64), 2)
    bucket = adapt_bucket(support, steps, 2, asks=query is not None)
    return AdaptJob(
        model,
        bucket,
        support.x.nbytes,
        deadline or Deadline(),
        Caller("anybody"),
        support=support,
        steps=steps,
        width=2,
        query=query,
    )


def predict_job(model):
    query = np.zeros((1, 1), np.float32)
    return PredictJob(model, "bucket", query.nbytes, Deadline(), Caller("anybody"), state=None, query=query)


async def submit(scheduler, *jobs):
    """Let jobs wait, in order."""
    tasks = [asyncio.create_task(scheduler.run(job)) for job in jobs]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


async def busy(scheduler, model):
    """Occupy the device until the model's gate is opened."""
    return (await submit(scheduler, adapt_job(model, examples=1000)))[0]


async def test_of_an_account_as_many_may_wait_as_its_jobs_say(make_scheduler, gated):
    scheduler = make_scheduler()
    running = await busy(scheduler, gated)
    jobs = [predict_job(gated) for _ in range(3)]
    for job in jobs:
        job.caller = Caller("me", limits=OwnerLimits(waiting=2))
    first, second, third, others = await submit(scheduler, *jobs, predict_job(gated))
    with pytest.raises(OverloadedError):
        await third
    gated.gate.set()
    await asyncio.gather(running, first, second, others)


async def test_the_engine_hears_of_a_state_as_soon_as_a_request_for_it_waits(make_scheduler, gated):
    """It may have to bring it to the device, and has time for that meanwhile."""
    heard = []
    gated.prefetch = heard.append
    scheduler = make_scheduler(waiting=1)
    running = await busy(scheduler, gated)
    first, second = predict_job(gated), predict_job(gated)
    first.state = FakeState()
    tasks = await submit(scheduler, first, second)
    assert heard == [first.state], "the second one was refused"
    with pytest.raises(OverloadedError):
        await tasks[1]
    gated.gate.set()
    await asyncio.gather(running, tasks[0])


class Turnstile:
    """A gate that lets batches through one by one, or all from now on."""

    def __init__(self):
        self._passes = threading.Semaphore(0)
        self._open = False
        self.reached = 0

    def wait(self, timeout):
        self.reached += 1
        return self._open or self._passes.acquire(timeout=timeout)

    def let_through(self, batches):
        self._passes.release(batches)

    def set(self):
        self._open = True
        self._passes.release(100)


async def until(condition):
    """Wait for something that threads bring about."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


def sizes(model):
    return [(operation, len(batch)) for operation, batch in model.batches]


async def test_a_free_device_takes_a_lone_request_at_once(scheduler, fake_model):
    model = fake_model()
    computed = await scheduler.run(adapt_job(model))
    assert sizes(model) == [("adapt", 1)]
    assert computed.queue_seconds < 0.5


async def test_requests_that_arrive_together_are_computed_together(scheduler, fake_model, value):
    model = fake_model()
    await asyncio.gather(*await submit(scheduler, *(adapt_job(model) for _ in range(5))))
    assert sizes(model) == [("adapt", 5)]
    assert value("innerloop_batch_size_sum", operation="adapt", model="fake") == 5
    assert value("innerloop_queue_depth", operation="adapt", model="fake") == 0


async def test_only_requests_of_like_size_and_equal_steps_share_a_batch(scheduler, gated):
    first = await busy(scheduler, gated)
    jobs = [adapt_job(gated, 5), adapt_job(gated, 8), adapt_job(gated, 9), adapt_job(gated, 5, steps=2)]
    waiting = await submit(scheduler, *jobs)
    gated.gate.set()
    await asyncio.gather(first, *waiting)
    assert sorted(len(batch) for _, batch in gated.batches[1:]) == [1, 1, 2]


async def test_batches_respect_the_limits_on_tasks_and_bytes(make_scheduler, gated):
    scheduler = make_scheduler(tasks=3, size_bytes=2 * 5 * 64)
    first = await busy(scheduler, gated)
    waiting = await submit(scheduler, *(adapt_job(gated) for _ in range(4)))
    gated.gate.set()
    await asyncio.gather(first, *waiting)
    assert sizes(gated)[1:] == [("adapt", 2), ("adapt", 2)]
    assert sizes(gated)[0] == ("adapt", 1), "a request larger than any batch still runs, alone"


async def test_adapting_and_predicting_take_turns_however_many_wait(make_scheduler, gated):
    scheduler = make_scheduler(tasks=2)
    first = await busy(scheduler, gated)
    adapts = await submit(scheduler, *(adapt_job(gated) for _ in range(8)))
    predicts = await submit(scheduler, *(predict_job(gated) for _ in range(2)))
    gated.gate.set()
    await asyncio.gather(first, *adapts, *predicts)
    operations = [operation for operation, _ in gated.batches]
    assert "predict" in operations[:4]


async def test_models_take_turns_however_many_wait(make_scheduler, gated, fake_model):
    scheduler, other, order = make_scheduler(tasks=1), fake_model("other"), []
    first = await busy(scheduler, gated)
    many = await submit(scheduler, *(adapt_job(gated) for _ in range(6)))
    few = await submit(scheduler, adapt_job(other))
    for task in (*many, *few):
        task.add_done_callback(order.append)
    gated.gate.set()
    await asyncio.gather(first, *many, *few)
    assert order.index(few[0]) <= 2


async def test_a_full_batch_is_ready_before_the_running_one_ends_but_a_smaller_one_keeps_growing(
    make_scheduler, make_lanes, gated, value
):
    scheduler = make_scheduler(tasks=3, lanes=make_lanes(2))
    running = await submit(scheduler, *(adapt_job(gated) for _ in range(3)))
    waiting = await submit(scheduler, *(adapt_job(gated) for _ in range(2)))
    assert value("innerloop_queue_depth", operation="adapt", model="fake") == 2
    waiting += await submit(scheduler, adapt_job(gated))
    assert value("innerloop_queue_depth", operation="adapt", model="fake") == 0
    gated.gate.set()
    await asyncio.gather(*running, *waiting)


async def test_a_cancelled_request_is_not_computed_and_takes_nobody_with_it(scheduler, gated, value):
    first = await busy(scheduler, gated)
    waiting = await submit(scheduler, *(adapt_job(gated, 5) for _ in range(3)))
    waiting[1].cancel()
    await asyncio.sleep(0)
    assert value("innerloop_queue_depth", operation="adapt", model="fake") == 2
    gated.gate.set()
    await asyncio.gather(first, waiting[0], waiting[2])
    assert sizes(gated) == [("adapt", 1), ("adapt", 2)]


async def test_a_request_past_its_deadline_is_told_so_and_not_computed(scheduler, gated):
    first = await busy(scheduler, gated)
    late, timely = await submit(scheduler, adapt_job(gated, deadline=Deadline(0.01)), adapt_job(gated))
    await asyncio.sleep(0.02)
    gated.gate.set()
    await asyncio.gather(first, timely)
    with pytest.raises(DeadlinePassedError):
        await late
    assert sizes(gated) == [("adapt", 1), ("adapt", 1)]


async def test_a_queue_whose_last_request_came_too_late_is_shown_as_empty(scheduler, gated, value):
    first = await busy(scheduler, gated)
    (late,) = await submit(scheduler, adapt_job(gated, deadline=Deadline(0.01)))
    assert value("innerloop_queue_depth", operation="adapt", model="fake") == 1
    await asyncio.sleep(0.02)
    gated.gate.set()
    await asyncio.gather(first, late, return_exceptions=True)
    assert value("innerloop_queue_depth", operation="adapt", model="fake") == 0


async def test_a_request_that_fails_fails_alone(scheduler, gated):
    gated.fails = lambda task: task.size == 7
    first = await busy(scheduler, gated)
    waiting = await submit(scheduler, *(adapt_job(gated, size) for size in (5, 6, 7, 8)))
    gated.gate.set()
    results = await asyncio.gather(first, *waiting, return_exceptions=True)
    assert [isinstance(result, RuntimeError) for result in results] == [False, False, False, True, False]


async def test_too_many_waiting_requests_are_refused_with_an_estimate(make_scheduler, gated):
    scheduler = make_scheduler(waiting=2)
    first = await busy(scheduler, gated)
    waiting = await submit(scheduler, adapt_job(gated), adapt_job(gated))
    with pytest.raises(OverloadedError) as refused:
        await scheduler.run(adapt_job(gated))
    assert 0 < refused.value.retry_after < 1
    waiting[0].cancel()
    await asyncio.sleep(0)
    waiting += await submit(scheduler, adapt_job(gated))
    gated.gate.set()
    await asyncio.gather(first, *waiting[1:])


async def test_too_many_waiting_bytes_are_refused(make_scheduler, gated):
    scheduler = make_scheduler(waiting_bytes=10 * 64)
    first = await busy(scheduler, gated)
    waiting = await submit(scheduler, adapt_job(gated, 8))
    with pytest.raises(OverloadedError):
        await scheduler.run(adapt_job(gated, 8))
    gated.gate.set()
    await asyncio.gather(first, *waiting)


async def test_one_model_waiting_does_not_keep_another_out(make_scheduler, gated, fake_model):
    scheduler = make_scheduler(waiting=1)
    first = await busy(scheduler, gated)
    waiting = await submit(scheduler, adapt_job(gated), adapt_job(fake_model("other")))
    gated.gate.set()
    await asyncio.gather(first, *waiting)


def take(queue, rule=lambda _: 2):
    """The next batch of a queue, of two jobs unless a rule says otherwise."""
    return queue.next_batch(rule, 10**6)


def serve(queue, had, seconds, until):
    """Batches that take as long as `seconds` says, until a time; adds up what each model and operation had."""
    while had.total() < until:
        batch = take(queue)
        job = batch[0]
        took = seconds(job)
        had[job.model.name, job.operation] += took
        yield batch
        queue.charge(batch, took, len(batch))


async def test_operations_that_always_wait_share_the_devices_time_by_their_weights(fake_model):
    model, queue, had = fake_model(), FairQueue({Operation.ADAPT: 3.0, Operation.PREDICT: 1.0}, POLICY), Counter()
    for make in (adapt_job, predict_job):
        for _ in range(4):
            queue.add(make(model))
    for batch in serve(queue, had, lambda job: 0.7 if job.operation is Operation.ADAPT else 0.1, until=400):
        for job in batch:
            queue.add(adapt_job(model) if job.operation is Operation.ADAPT else predict_job(model))
    assert had["fake", Operation.ADAPT] / had["fake", Operation.PREDICT] == pytest.approx(3, rel=0.03)


@pytest.mark.parametrize("sharing", ["models", "operations"])
async def test_one_who_never_waits_while_it_is_computed_gets_no_more_than_its_share(fake_model, sharing):
    """As with a single caller, who sends the next request when it has the answer to the last."""
    queue, model, had = FairQueue(EVEN, POLICY), fake_model(), Counter()
    crowd = fake_model("crowd") if sharing == "models" else model

    def from_caller():
        return adapt_job(model)

    def from_crowd():
        return adapt_job(crowd) if sharing == "models" else predict_job(crowd)

    queue.add(from_caller())
    for _ in range(4):
        queue.add(from_crowd())
    caller, answered = (model.name, Operation.ADAPT), False
    for batch in serve(queue, had, lambda job: 1.0 if (job.model.name, job.operation) == caller else 0.1, until=100):
        if answered:
            queue.add(from_caller())
        answered = (batch[0].model.name, batch[0].operation) == caller
        for _ in batch:
            if not answered:
                queue.add(from_crowd())
    assert had[caller] == pytest.approx(50, rel=0.05)


@pytest.mark.parametrize("alone", [1, 1000])
async def test_nobody_saves_time_up_while_idle_nor_pays_for_having_been_alone(fake_model, alone):
    busy, idle, queue = fake_model("busy"), fake_model("idle"), FairQueue(EVEN, POLICY)
    queue.add(adapt_job(idle))
    assert take(queue)
    for _ in range(alone):
        queue.add(adapt_job(busy))
        (job,) = take(queue)
        assert job.model is busy
        queue.charge([job], 1.0, 1)
    for _ in range(20):
        queue.add(adapt_job(busy))
        queue.add(adapt_job(idle))
    order = [batch[0].model.name for batch in serve(queue, Counter(), lambda _: 1.0, until=12)]
    assert abs(order.count("busy") - order.count("idle")) <= 2
    assert not {("busy",) * 3, ("idle",) * 3} & set(zip(order, order[1:], order[2:], strict=False))


async def test_a_model_that_was_unloaded_is_forgotten(scheduler, fake_model):
    model = fake_model()
    await scheduler.run(adapt_job(model))
    seen = weakref.ref(model)
    del model
    await until(lambda: gc.collect() >= 0 and seen() is None)


async def test_a_batch_that_is_computed_while_the_scheduler_stops_is_answered_before_its_lane_ends(
    make_scheduler, make_lanes, gated
):
    lanes = make_lanes(1)
    scheduler = make_scheduler(lanes=lanes)
    running = await busy(scheduler, gated)
    (waiting,) = await submit(scheduler, adapt_job(gated))
    scheduler.stop()
    assert not await lanes.stop(0.05)
    gated.gate.set()
    await asyncio.wait_for(running, 5)
    assert await lanes.stop(5)
    assert sizes(gated) == [("adapt", 1)]
    waiting.cancel()


async def test_as_many_batches_as_there_are_lanes_share_what_waits(make_scheduler, make_lanes, fake_model):
    model, together = fake_model(), threading.Barrier(4, timeout=5)

    class Meeting:
        def wait(self, _):
            together.wait()
            return True

    model.gate = Meeting()
    scheduler = make_scheduler(lanes=make_lanes(4), side_by_side=4)
    await asyncio.gather(*await submit(scheduler, *(adapt_job(model) for _ in range(8))))
    assert sizes(model) == [("adapt", 2)] * 4


async def test_a_lane_that_frees_takes_its_share_of_what_is_outstanding(
    make_scheduler, make_lanes, fake_model, monkeypatch
):
    # Whatever the batches happen to take here, they are neither long nor short.
    monkeypatch.setattr(policy, "LONGEST_BATCH", math.inf)
    monkeypatch.setattr(policy, "SHORT_BATCH", 0.0)
    model = fake_model()
    gate = model.gate = Turnstile()
    scheduler = make_scheduler(lanes=make_lanes(2), side_by_side=2)
    running = await submit(scheduler, adapt_job(model), adapt_job(model))
    waiting = await submit(scheduler, *(adapt_job(model) for _ in range(5)))
    gate.let_through(1)
    await until(lambda: any(task.done() for task in running))
    assert sizes(model) == [("adapt", 1)]
    gate.set()
    await asyncio.gather(*running, *waiting)
    assert sorted(sizes(model)) == [("adapt", 1), ("adapt", 1), ("adapt", 2), ("adapt", 3)]


@pytest.mark.parametrize("lanes", [2, 4])
async def test_a_lone_request_is_never_held_back_while_a_lane_is_free(
    make_scheduler, make_lanes, gated, fake_model, lanes
):
    scheduler = make_scheduler(lanes=make_lanes(lanes), side_by_side=lanes)
    running = [await busy(scheduler, gated) for _ in range(lanes - 1)]
    async with asyncio.timeout(2):
        await scheduler.run(adapt_job(fake_model("other")))
    gated.gate.set()
    await asyncio.gather(*running)


async def test_batches_of_one_request_each_run_in_the_order_of_arrival(make_scheduler, gated):
    scheduler = make_scheduler(tasks=1)
    first = await busy(scheduler, gated)
    waiting = await submit(scheduler, *(adapt_job(gated, examples) for examples in (5, 6, 7, 8)))
    gated.gate.set()
    await asyncio.gather(first, *waiting)
    assert [[task.size for task in batch] for _, batch in gated.batches] == [[1000], [5], [6], [7], [8]]


async def test_where_lanes_make_batches_ready_one_as_large_as_the_running_one_is_handed_over_early(
    make_scheduler, make_lanes, gated, value
):
    def waiting():
        return value("innerloop_queue_depth", operation="adapt", model="fake")

    scheduler = make_scheduler(tasks=100, lanes=make_lanes(2))
    jobs = await submit(scheduler, *(adapt_job(gated) for _ in range(4)))
    jobs += await submit(scheduler, *(adapt_job(gated) for _ in range(3)))
    assert waiting() == 3, "it keeps growing while it is smaller than the running one"
    jobs += await submit(scheduler, adapt_job(gated))
    assert waiting() == 0
    jobs += await submit(scheduler, *(adapt_job(gated) for _ in range(9)))
    assert waiting() == 9, "one batch is ready, and no more"
    gated.gate.set()
    await asyncio.gather(*jobs)
    assert [size for _, size in sizes(gated)].count(4) == 2  # in whichever order they ended


async def test_what_waits_for_something_else_is_made_ready_however_much_of_the_first_is_running(
    make_scheduler, make_lanes, gated, value
):
    scheduler = make_scheduler(tasks=100, lanes=make_lanes(2))
    jobs = await submit(scheduler, *(adapt_job(gated) for _ in range(9)))
    jobs += await submit(scheduler, *(job for _ in range(4) for job in (predict_job(gated), adapt_job(gated))))
    assert value("innerloop_queue_depth", operation="predict", model="fake") == 0
    assert value("innerloop_queue_depth", operation="adapt", model="fake") == 4
    gated.gate.set()
    await asyncio.gather(*jobs)


async def test_models_share_the_device_evenly_where_batches_are_made_ready_while_others_run(
    make_scheduler, make_lanes, fake_model
):
    device, had = threading.Lock(), Counter()

    def make(name, seconds):
        class Working:
            def wait(self, _):
                with device:
                    started = time.monotonic()
                    time.sleep(seconds)
                    had[name] += time.monotonic() - started
                return True

        model = fake_model(name)
        model.gate = Working()
        return model

    slow, quick = make("slow", 0.05), make("quick", 0.002)
    scheduler = make_scheduler(tasks=1, lanes=make_lanes(2), waiting=1000)
    waiting = await submit(scheduler, *(adapt_job(model) for model in (slow, *[quick] * 24) for _ in range(12)))
    await until(lambda: had["slow"] > 0.5)
    assert had["quick"] / had["slow"] > 0.6
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


class TellingModel(RecordingModel):
    """Answers tell which task and which queries they are of."""

    def adapt(self, tasks, steps, width, *, alone=True):
        super().adapt(tasks, steps, width, alone=alone)
        return [AdaptedTask(FakeState(signature=int(task.x[0, 0, 0, 0])), ()) for task in tasks]

    def predict(self, states, queries, *, alone=True):
        super().predict(states, queries, alone=alone)
        return [
            Answers(values=np.stack([np.full(len(query), state.signature), query[:, 0].astype(int)], 1))
            for state, query in zip(states, queries, strict=True)
        ]


@pytest.fixture
def telling():
    return TellingModel(describe(), "telling")


def asking_jobs(model, lengths):
    """Jobs of one bucket, whose tasks and queries are numbered."""
    first = 0
    for index, length in enumerate(lengths):
        dtype = (np.uint8, np.float32)[index % 2]
        query = np.arange(first, first + length)[:, None].astype(dtype)
        job = adapt_job(model, query=query)
        job.support.x[:] = index
        yield job
        first += length


async def test_each_of_a_batch_of_adapt_requests_gets_the_answers_to_its_own_queries(scheduler, telling):
    lengths = [1, 7, 2, 8, 1, 3, 4, 16]
    jobs = list(asking_jobs(telling, lengths))
    computed = await asyncio.gather(*await submit(scheduler, *jobs))
    assert sizes(telling)[0] == ("adapt", 8)
    for index, (job, one) in enumerate(zip(jobs, computed, strict=True)):
        assert one.value[0].state.signature == index
        expected = np.stack([np.full(len(job.query), index), job.query[:, 0].astype(int)], 1)
        np.testing.assert_array_equal(one.value[1].values, expected)
        assert set(one.seconds) == {Operation.ADAPT, Operation.PREDICT}
    for _, queries in telling.batches[1:]:
        assert len({query.dtype for query in queries}) == 1
        assert max(map(len, queries)) < 2 * min(map(len, queries)), "nobody's queries are padded to twice as many"


async def test_a_request_whose_queries_fail_fails_alone(scheduler, telling):
    telling.fails = lambda asked: isinstance(asked, np.ndarray) and len(asked) == 2
    jobs = asking_jobs(telling, [1, 2, 3])
    results = await asyncio.gather(*await submit(scheduler, *jobs), return_exceptions=True)
    assert [isinstance(result, RuntimeError) for result in results] == [False, True, False]


async def test_a_batch_that_memory_has_no_room_for_is_computed_in_parts_and_the_rest_is_told_to_come_back(
    scheduler, fake_model
):
    model, room = fake_model(), [2]

    def full(_):
        room[0] -= 1
        if room[0] < 0 or len(model.batches[-1][1]) > 1:
            raise MemoryFullError
        return False

    model.fails = full
    jobs = await submit(scheduler, *(adapt_job(model) for _ in range(3)))
    results = await asyncio.gather(*jobs, return_exceptions=True)
    assert [isinstance(result, OverloadedError) for result in results] == [False, True, True]
    assert results[1].retry_after > 0


OUT_OF_MEMORY = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "cpu": RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
    "numpy": MemoryError("Unable to allocate 8.00 PiB"),
    "onnx": RuntimeError("BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 4"),
}


@pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
async def test_a_batch_for_which_the_device_has_no_memory_is_halved_until_it_has(scheduler, fake_model, error):
    model, room = fake_model(), 3

    def full(_):
        if len(model.batches[-1][1]) > room:
            raise error
        return False

    model.fails = full
    results = await asyncio.gather(*await submit(scheduler, *(adapt_job(model) for _ in range(8))))
    assert len(results) == 8
    assert [len(batch) for _, batch in model.batches] == [8, 4, 2, 2, 4, 2, 2]
    room = 0
    (alone,) = await asyncio.gather(*await submit(scheduler, adapt_job(model)), return_exceptions=True)
    assert isinstance(alone, OverloadedError), "it may find room later"


async def test_how_fast_a_batch_fails_says_nothing_of_how_long_one_takes(scheduler, fake_model):
    model = fake_model()
    job, model.fails = adapt_job(model), lambda _: True
    await asyncio.gather(*await submit(scheduler, job), return_exceptions=True)
    assert scheduler._queue.seconds_each(job) is None
    model.fails = lambda _: False
    await asyncio.gather(*await submit(scheduler, adapt_job(model)))
    assert scheduler._queue.seconds_each(job) is not None


async def test_an_engine_that_loses_an_answer_leaves_nobody_waiting(scheduler, fake_model):
    model = fake_model()
    model.adapt = lambda tasks, *_, **__: [AdaptedTask(FakeState(), ())] * (len(tasks) - 1)
    async with asyncio.timeout(5):
        results = await asyncio.gather(
            *await submit(scheduler, adapt_job(model), adapt_job(model)), return_exceptions=True
        )
    assert all(isinstance(result, ValueError) for result in results)


def test_size_ranges_end_at_powers_of_two():
    assert [size_range(size) for size in (1, 2, 3, 4, 5, 8, 9)] == [0, 1, 2, 2, 3, 3, 4]


def test_a_fixed_head_keeps_its_width_and_others_grow_by_powers_of_two(fake_model):
    fixed, free = (fake_model(ways_can_change="fewer", head_ways=5), fake_model(ways_can_change="any", max_ways=64))
    assert [fixed.description.head_width(ways) for ways in (2, 3, 5)] == [5, 5, 5]
    assert [free.description.head_width(ways) for ways in (2, 3, 5, 20)] == [2, 4, 8, 32]
    limited = fake_model(ways_can_change="any", max_ways=20)
    assert [limited.description.head_width(ways) for ways in (5, 17, 20)] == [8, 20, 20]
    assert free.description.head_width(0) == 0


async def test_a_batch_ahead_shares_evenly_what_there_is_of_its_size_only(fake_model):
    model, queue = fake_model(), FairQueue(EVEN, POLICY)
    ahead = BatchPolicy(BatchLimits(tasks=100, size_bytes=10**6), lanes=1).ahead
    for _ in range(9):
        queue.add(adapt_job(model))
    running = take(queue, ahead)
    assert len(running) == 9, "nothing of it is being computed"
    for _ in range(8):
        queue.add(adapt_job(model))
    assert take(queue, ahead) == []
    queue.add(predict_job(model))
    assert len(take(queue, ahead)) == 1
    for _ in range(5):
        queue.add(adapt_job(model))
    assert len(take(queue, ahead)) == 11, "of 9 and 13, half"
    queue.charge(running, 1.0, 9)
    assert take(queue, ahead) == []


@pytest.fixture
def at_once(monkeypatch):
    """The rule of a free lane for batches of 8 jobs or 50 ms, of a device that has much to do."""
    monkeypatch.setattr(policy, "LONGEST_BATCH", 0.05)
    rules = BatchPolicy(BatchLimits(tasks=8, size_bytes=10**6), lanes=2)
    return lambda load, short=0: rules.at_once(load, outstanding=1000, short=short, long=0)


async def test_a_batch_is_as_long_as_it_may_be_by_the_shortest_time_of_the_latest(fake_model, at_once):
    model, queue = fake_model(), FairQueue(EVEN, POLICY)
    jobs = [adapt_job(model) for _ in range(40)]
    for job in jobs:
        queue.add(job)
    assert len(take(queue, at_once)) == 8  # nothing is known yet
    queue.charge([jobs[0]], 0.032, 2)
    queue.charge([jobs[0]], 0.9, 1)  # something was in its way
    queue.charge([jobs[0]], 0.0, 0)  # nobody waited any more
    assert len(take(queue, at_once)) == 3
    for _ in range(LATEST_BATCHES):
        queue.charge([jobs[0]], 0.1, 1)
    assert len(take(queue, at_once)) == 1


async def test_times_of_one_size_tell_nothing_of_another(fake_model, at_once):
    model, queue = fake_model(), FairQueue(EVEN, POLICY)
    queue.add(adapt_job(model, 5))
    queue.charge(take(queue, at_once), 0.1, 1)
    for _ in range(8):
        queue.add(adapt_job(model, 100))
    assert len(take(queue, at_once)) == 8, "one batch is too few to go by"
    for steps in range(MOST_BUCKETS):
        queue.charge([adapt_job(model, steps=steps + 2)], 0.1, 1)
    assert queue.seconds_each(adapt_job(model, 5)) is None  # those of long ago are forgotten


async def test_a_batch_ahead_is_as_full_as_its_time_allows(fake_model, monkeypatch):
    monkeypatch.setattr(policy, "LONGEST_BATCH", 0.05)
    ahead = BatchPolicy(BatchLimits(tasks=8, size_bytes=10**6), lanes=2).ahead
    model, queue = fake_model(), FairQueue(EVEN, POLICY)
    for _ in range(8):
        queue.add(adapt_job(model))
    running = take(queue, ahead)
    for _ in range(2):
        queue.add(adapt_job(model))
    assert take(queue, ahead) == []
    queue.charge([running.pop()], 0.025, 1)
    assert len(take(queue, ahead)) == 2


async def test_what_is_known_to_be_short_lets_others_go_first_where_it_shall_grow(fake_model, at_once):
    short, long, new, queue = fake_model("short"), fake_model("long"), fake_model("new"), FairQueue(EVEN, POLICY)
    for model, seconds in ((short, 0.001), (long, 0.02)):
        queue.add(adapt_job(model))
        queue.charge(take(queue), seconds, 1)
    for model in (short, long, new):
        queue.add(adapt_job(model))
    grows = partial(at_once, short=1)
    first, second = take(queue, grows), take(queue, grows)
    assert {first[0].model, second[0].model} == {long, new}
    assert take(queue, grows) == []
    assert [job.model for job in take(queue, at_once)] == [short]


def test_the_examples_of_the_rules_are_right():
    for module in (admission, batch_times, fair_turns, policy):
        assert doctest.testmod(module).failed == 0
        assert doctest.testmod(module).attempted


async def test_what_waits_behind_jobs_that_are_all_too_late_is_taken_at_once(fake_model):
    model, queue = fake_model(), FairQueue(EVEN, POLICY)
    late, alive = adapt_job(model, steps=1, deadline=Deadline(0.0)), adapt_job(model, steps=2)
    for job in (late, alive):
        queue.add(job)
    assert take(queue) == [alive]
    assert list(queue._models.queue_of(model).queue_of(Operation.ADAPT)._running) == [alive.bucket]
    assert isinstance(late.future.exception(), DeadlinePassedError)


async def test_short_batches_take_half_of_the_lanes_until_one_of_them_ends(
    make_scheduler, make_lanes, gated, monkeypatch
):
    monkeypatch.setattr(policy, "SHORT_BATCH", math.inf)  # as all are of which it is known how long they take
    scheduler = make_scheduler(lanes=make_lanes(4), side_by_side=4)
    gate = gated.gate = Turnstile()
    gate.let_through(1)
    await scheduler.run(adapt_job(gated))
    running = [(await submit(scheduler, adapt_job(gated)))[0] for _ in range(2)]
    waiting = await submit(scheduler, adapt_job(gated))
    await asyncio.sleep(0.05)
    assert gate.reached == 3
    gate.let_through(1)
    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    await until(lambda: gate.reached == 4)
    gate.set()
    await asyncio.gather(*running, *waiting)


class AbandonableLane:
    """A lane whose batches end when they are told to, or by themselves."""

    def __init__(self):
        self.told, self.batch = asyncio.Event(), None

    async def compute(self, model, batch):
        del model
        self.batch = batch
        await self.told.wait()
        raise AbandonedError

    def abandon(self):
        self.told.set()


class OneLane:
    """Has one lane, for one feeder."""

    count = 1

    def __init__(self, lane):
        self._lane = lane

    async def take(self):
        return self._lane

    def give_back(self, lane):
        pass


async def test_a_batch_ends_when_the_last_who_waits_for_it_leaves(make_scheduler, fake_model):
    lane, model = AbandonableLane(), fake_model()
    scheduler = make_scheduler(lanes=OneLane(lane))
    first, second = await submit(scheduler, adapt_job(model), adapt_job(model))
    await until(lambda: lane.batch is not None)
    first.cancel()
    await asyncio.sleep(0.01)
    assert not lane.told.is_set()
    assert not lane.batch.abandoned()
    second.cancel()
    await asyncio.wait_for(lane.told.wait(), 5)
    assert lane.batch.abandoned()
    await until(lambda: not scheduler._running.count)


async def test_a_batch_whose_deadlines_have_all_passed_is_not_worth_computing_any_more(make_scheduler, fake_model):
    lane, model = AbandonableLane(), fake_model()
    scheduler = make_scheduler(lanes=OneLane(lane))
    (late,) = await submit(scheduler, adapt_job(model, deadline=Deadline(0.05)))
    await until(lambda: lane.batch is not None and lane.batch.abandoned())
    lane.abandon()
    with pytest.raises(DeadlinePassedError):
        await late


async def test_accounts_of_which_nothing_waits_are_not_remembered(fake_model):
    queue, model = OperationQueue(POLICY), fake_model()
    for account in range(100):
        job = adapt_job(model)
        job.caller = Caller(str(account))
        assert queue.ahead_of(job, long=False) == 0.0
        if account % 2:
            queue.add(job)
            assert queue.discard(job)
    for of_account in (queue._jobs_of, queue._bytes_of, queue._cost_of, queue._last_place):
        assert not of_account

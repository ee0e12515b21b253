"""Scheduling: batches, fairness, admission, and requests that nobody waits for any more."""

import asyncio
import threading

import numpy as np
import pytest

from innerloop_server.engine.interface import SupportSet
from innerloop_server.engine.lanes import Lanes
from innerloop_server.errors import DeadlinePassedError, OverloadedError
from innerloop_server.scheduling.buckets import adapt_bucket, size_range
from innerloop_server.scheduling.job import AdaptJob, Deadline, Operation, PredictJob
from innerloop_server.scheduling.queue import BatchLimits
from innerloop_server.scheduling.scheduler import QueueLimits, Scheduler

EVEN = {Operation.ADAPT: 1.0, Operation.PREDICT: 1.0}


@pytest.fixture
async def lane():
    lane = Lanes(1)
    yield lane
    lane.stop(5)


@pytest.fixture
def make_scheduler(lane, metrics):
    def make(tasks=8, size_bytes=10**6, waiting=100, waiting_bytes=10**6, lanes=lane, side_by_side=1, weights=EVEN):
        limits = QueueLimits(waiting, waiting_bytes)
        return Scheduler(lanes, side_by_side, BatchLimits(tasks, size_bytes), limits, weights, metrics)

    return make


@pytest.fixture
async def scheduler(make_scheduler):
    return make_scheduler()


@pytest.fixture
def gated(fake_model):
    """A model whose computations wait until its gate is opened."""
    model = fake_model()
    model.loaded.gate = threading.Event()
    yield model
    model.loaded.gate.set()


def adapt_job(model, examples=5, steps=1, deadline=None, query=None):
    support = SupportSet(np.zeros((examples, 1, 8, 8), np.uint8), np.zeros(examples, np.int64), 2)
    bucket = adapt_bucket(support, steps, 2, asks=query is not None)
    return AdaptJob(
        model, bucket, support.x.nbytes, deadline or Deadline(), support=support, steps=steps, width=2, query=query
    )


def predict_job(model):
    query = np.zeros((1, 1), np.float32)
    return PredictJob(model, "bucket", query.nbytes, Deadline(), state=None, query=query)


async def submit(scheduler, *jobs):
    """Let jobs wait, in order."""
    tasks = [asyncio.create_task(scheduler.run(job)) for job in jobs]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


async def busy(scheduler, model):
    """Occupy the device until the model's gate is opened."""
    return (await submit(scheduler, adapt_job(model, examples=1000)))[0]


def sizes(model):
    return [(operation, len(batch)) for operation, batch in model.loaded.batches]


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
    gated.loaded.gate.set()
    await asyncio.gather(first, *waiting)
    assert sorted(len(batch) for _, batch in gated.loaded.batches[1:]) == [1, 1, 2]


async def test_batches_respect_the_limits_on_tasks_and_bytes(make_scheduler, gated):
    scheduler = make_scheduler(tasks=3, size_bytes=2 * 5 * 64)
    first = await busy(scheduler, gated)
    waiting = await submit(scheduler, *(adapt_job(gated) for _ in range(4)))
    gated.loaded.gate.set()
    await asyncio.gather(first, *waiting)
    assert sizes(gated)[1:] == [("adapt", 2), ("adapt", 2)]
    assert sizes(gated)[0] == ("adapt", 1), "a request larger than any batch still runs, alone"


async def test_adapting_and_predicting_take_turns_however_many_wait(make_scheduler, gated):
    scheduler = make_scheduler(tasks=2)
    first = await busy(scheduler, gated)
    adapts = await submit(scheduler, *(adapt_job(gated) for _ in range(8)))
    predicts = await submit(scheduler, *(predict_job(gated) for _ in range(2)))
    gated.loaded.gate.set()
    await asyncio.gather(first, *adapts, *predicts)
    operations = [operation for operation, _ in gated.loaded.batches]
    assert "predict" in operations[:4]


async def test_models_take_turns_however_many_wait(make_scheduler, gated, fake_model):
    scheduler, other, order = make_scheduler(tasks=1), fake_model("other"), []
    first = await busy(scheduler, gated)
    many = await submit(scheduler, *(adapt_job(gated) for _ in range(6)))
    few = await submit(scheduler, adapt_job(other))
    for task in (*many, *few):
        task.add_done_callback(order.append)
    gated.loaded.gate.set()
    await asyncio.gather(first, *many, *few)
    assert order.index(few[0]) <= 2


async def test_a_full_batch_is_ready_before_the_running_one_ends_but_a_smaller_one_keeps_growing(
    make_scheduler, gated, value
):
    scheduler = make_scheduler(tasks=3)
    first = await busy(scheduler, gated)
    waiting = await submit(scheduler, *(adapt_job(gated) for _ in range(2)))
    assert value("innerloop_queue_depth", operation="adapt", model="fake") == 2
    waiting += await submit(scheduler, adapt_job(gated))
    assert value("innerloop_queue_depth", operation="adapt", model="fake") == 0
    gated.loaded.gate.set()
    await asyncio.gather(first, *waiting)


async def test_a_cancelled_request_is_not_computed_and_takes_nobody_with_it(scheduler, gated, value):
    first = await busy(scheduler, gated)
    waiting = await submit(scheduler, *(adapt_job(gated, 5) for _ in range(3)))
    waiting[1].cancel()
    await asyncio.sleep(0)
    assert value("innerloop_queue_depth", operation="adapt", model="fake") == 2
    gated.loaded.gate.set()
    await asyncio.gather(first, waiting[0], waiting[2])
    assert sizes(gated) == [("adapt", 1), ("adapt", 2)]


async def test_a_request_cancelled_after_it_was_handed_over_is_not_computed_either(make_scheduler, gated):
    scheduler = make_scheduler(tasks=2)
    first = await busy(scheduler, gated)
    waiting = await submit(scheduler, adapt_job(gated), adapt_job(gated))
    waiting[0].cancel()
    await asyncio.sleep(0)
    gated.loaded.gate.set()
    await asyncio.gather(first, waiting[1])
    assert sizes(gated) == [("adapt", 1), ("adapt", 1)]


async def test_a_request_past_its_deadline_is_told_so_and_not_computed(scheduler, gated):
    first = await busy(scheduler, gated)
    late, timely = await submit(scheduler, adapt_job(gated, deadline=Deadline(0.01)), adapt_job(gated))
    await asyncio.sleep(0.02)
    gated.loaded.gate.set()
    await asyncio.gather(first, timely)
    with pytest.raises(DeadlinePassedError):
        await late
    assert sizes(gated) == [("adapt", 1), ("adapt", 1)]


async def test_a_queue_whose_last_request_came_too_late_is_shown_as_empty(scheduler, gated, value):
    first = await busy(scheduler, gated)
    (late,) = await submit(scheduler, adapt_job(gated, deadline=Deadline(0.01)))
    assert value("innerloop_queue_depth", operation="adapt", model="fake") == 1
    await asyncio.sleep(0.02)
    gated.loaded.gate.set()
    await asyncio.gather(first, late, return_exceptions=True)
    assert value("innerloop_queue_depth", operation="adapt", model="fake") == 0


async def test_a_request_that_fails_fails_alone(scheduler, gated):
    gated.loaded.fails = lambda task: task.size == 7
    first = await busy(scheduler, gated)
    waiting = await submit(scheduler, *(adapt_job(gated, size) for size in (5, 6, 7, 8)))
    gated.loaded.gate.set()
    results = await asyncio.gather(first, *waiting, return_exceptions=True)
    assert [isinstance(result, RuntimeError) for result in results] == [False, False, False, True, False]


async def test_too_many_waiting_requests_are_refused_with_an_estimate(make_scheduler, gated):
    scheduler = make_scheduler(waiting=2)
    first = await busy(scheduler, gated)
    waiting = await submit(scheduler, adapt_job(gated), adapt_job(gated))
    with pytest.raises(OverloadedError) as refused:
        await scheduler.run(adapt_job(gated))
    assert 0.1 <= refused.value.retry_after <= 30
    waiting[0].cancel()
    await asyncio.sleep(0)
    waiting += await submit(scheduler, adapt_job(gated))
    gated.loaded.gate.set()
    await asyncio.gather(first, *waiting[1:])


async def test_too_many_waiting_bytes_are_refused(make_scheduler, gated):
    scheduler = make_scheduler(waiting_bytes=10 * 64)
    first = await busy(scheduler, gated)
    waiting = await submit(scheduler, adapt_job(gated, 8))
    with pytest.raises(OverloadedError):
        await scheduler.run(adapt_job(gated, 8))
    gated.loaded.gate.set()
    await asyncio.gather(first, *waiting)


async def test_one_model_waiting_does_not_keep_another_out(make_scheduler, gated, fake_model):
    scheduler = make_scheduler(waiting=1)
    first = await busy(scheduler, gated)
    waiting = await submit(scheduler, adapt_job(gated), adapt_job(fake_model("other")))
    gated.loaded.gate.set()
    await asyncio.gather(first, *waiting)


def test_size_ranges_end_at_powers_of_two():
    assert [size_range(size) for size in (1, 2, 3, 4, 5, 8, 9)] == [0, 1, 2, 2, 3, 3, 4]


def test_a_fixed_head_keeps_its_width_and_others_grow_by_powers_of_two(fake_model):
    fixed, free = (fake_model(ways_can_change="fewer", head_ways=5), fake_model(ways_can_change="any", max_ways=64))
    assert [fixed.description.head_width(ways) for ways in (2, 3, 5)] == [5, 5, 5]
    assert [free.description.head_width(ways) for ways in (2, 3, 5, 20)] == [2, 4, 8, 32]
    limited = fake_model(ways_can_change="any", max_ways=20)
    assert [limited.description.head_width(ways) for ways in (5, 17, 20)] == [8, 20, 20]
    assert free.description.head_width(0) == 0

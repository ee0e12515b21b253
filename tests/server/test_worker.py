"""Processes that compute for the engine: equal answers, and nothing lost when one dies."""

import asyncio
import gc
import math
import os
import signal
import subprocess
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from bundles import FIXED_WAYS, IMAGE, write_models

from innerloop_server.domain.deadline import Deadline
from innerloop_server.domain.tasks import SupportSet
from innerloop_server.domain.timings import Operation
from innerloop_server.engine.lanes import Lanes
from innerloop_server.engine.pytorch import cpu_device
from innerloop_server.engine.pytorch.engine import TorchEngine, TorchSettings
from innerloop_server.engine.pytorch.model import MOST_BYTES_AWAITED
from innerloop_server.engine.pytorch.worker import Worker, WorkerError
from innerloop_server.engine.pytorch.worker_messages import LARGEST_MESSAGE, Failed, connect, receive, send
from innerloop_server.scheduling.buckets import adapt_bucket
from innerloop_server.scheduling.job import AdaptJob
from innerloop_server.scheduling.queue import BatchLimits
from innerloop_server.scheduling.scheduler import QueueLimits, Scheduler

LANE = 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def engine():
    return TorchEngine(TorchSettings("cpu", lanes=2))


@pytest.fixture(scope="module")
def worker():
    worker = started()
    yield worker
    worker.stop()


def started():
    worker = Worker()
    assert worker.wait(30)
    return worker


def task(name, seed):
    random = np.random.default_rng(seed)
    if name == "regression":
        x = random.normal(size=(5, 1)).astype(np.float32)
        return SupportSet(x, np.sin(x), 0)
    return SupportSet(random.integers(0, 256, (5, *IMAGE), np.uint8), np.arange(5), 5)


@pytest.fixture(params=["prototypes", "gradients", "regression"])
def model(request, engine, folder):
    return engine.load(request.param, folder / request.param), [task(request.param, seed) for seed in range(3)]


def answers(model, tasks):
    width = model.description.head_width(tasks[0].ways)
    adapted = model.adapt(tasks, model.description.traits.default_steps, width)
    given = model.predict([one.state for one in adapted], [one.x[: 1 + index] for index, one in enumerate(tasks)])
    return [one.losses for one in adapted], [one.probabilities if one.values is None else one.values for one in given]


def by_worker(engine, worker, function):
    """What a function returns on a lane that has a worker, and the programs that the worker ran."""
    ran, results, run = [], [], worker.run
    worker.run = lambda program: (ran.append(program), run(program))[1]

    def lane():
        engine._device._local.lane = LANE
        engine._device._workers[LANE] = worker
        with engine._device._alone():  # something else is being computed
            results.append(function())

    thread = Thread(target=lane)
    thread.start()
    thread.join()
    del worker.run
    return results[0], ran


def test_a_worker_answers_as_the_process_itself(engine, worker, model):
    (losses, values), ran = by_worker(engine, worker, lambda: answers(*model))
    assert len(ran) == 2
    expected_losses, expected = answers(*model)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    for found, wanted in zip(values, expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


@pytest.fixture
async def busy_scheduler(engine, metrics):
    """A scheduler of two lanes that have workers, in a process that computes something else."""
    lanes = Lanes(engine.threads, engine.enter_lane)
    while len(engine._device._workers) < engine.threads or not all(
        worker.ready for worker in engine._device._workers.values()
    ):
        await asyncio.sleep(0.01)
    scheduler = Scheduler(
        lanes,
        engine.lanes,
        BatchLimits(8, 10**8),
        QueueLimits(100, 10**8),
        dict.fromkeys(Operation, 1.0),
        metrics,
    )
    with engine._device._alone():
        yield scheduler
    assert await lanes.stop(5)
    for worker in engine._device._workers.values():
        worker.stop()


def know(engine, model):
    """Have the worker of the first lane told of a model."""
    kind = "regression" if model.description.traits.task_kind == "regression" else "images"
    by_worker(engine, engine._device._workers[LANE], lambda: answers(model, [task(kind, 0)]))


def adapt_job(model, support):
    """A job that learns a task and answers it."""
    description = model.description
    width, steps = description.head_width(support.ways), description.traits.default_steps
    bucket = adapt_bucket(support, steps, width, asks=True)
    return AdaptJob(
        model,
        bucket,
        support.x.nbytes,
        Deadline(),
        support=support,
        steps=steps,
        width=width,
        query=support.x,
    )


async def test_the_event_loop_has_batches_computed_by_workers(engine, busy_scheduler, model, monkeypatch):
    """Threads would have to wait for the interpreter, which the event loop keeps busy."""
    loaded, tasks = model
    _, expected = answers(loaded, tasks[:1])
    know(engine, loaded)
    monkeypatch.setattr(engine._device, "run", None)  # what threads call
    learnt = await asyncio.wait_for(busy_scheduler.run(adapt_job(loaded, tasks[0])), 60)
    found = learnt.value.answers
    values = found.probabilities if found.values is None else found.values
    np.testing.assert_allclose(values[:1], expected[0], rtol=1e-4, atol=1e-6)


async def test_a_worker_that_dies_while_the_event_loop_waits_takes_no_batch_with_it(engine, busy_scheduler, folder):
    model, first = engine.load("gradients", folder / "gradients"), engine._device._workers[LANE]
    know(engine, model)
    os.kill(first._process.pid, signal.SIGSTOP)
    waiting = asyncio.create_task(busy_scheduler.run(adapt_job(model, task("gradients", 0))))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    os.kill(first._process.pid, signal.SIGKILL)
    learnt = await asyncio.wait_for(waiting, 60)
    assert learnt.value.answers.finite
    assert engine._device._workers[LANE] is not first


@pytest.mark.usefixtures("busy_scheduler")
async def test_the_event_loop_leaves_to_threads_what_would_hold_it_up(engine, folder, monkeypatch):
    model = engine.load("gradients", folder / "gradients")
    assert model.remote(LANE, 1, 1000) is None, "the worker does not know the model yet"
    know(engine, model)
    (adapted,) = model.adapt([task("gradients", 0)], 1, FIXED_WAYS)
    state_bytes = adapted.state.size_bytes
    assert model.remote(LANE, 1, MOST_BYTES_AWAITED - state_bytes) is not None
    assert model.remote(LANE, 1, MOST_BYTES_AWAITED - state_bytes + 1) is None, "the inputs are large"
    assert model.remote(LANE, MOST_BYTES_AWAITED // state_bytes + 1, 0) is None, "the states are large"
    monkeypatch.setattr(engine._device, "_running", 0)
    monkeypatch.setattr(engine._device, "_shared", -math.inf)
    assert model.remote(LANE, 1, 1000) is None, "nothing else is computed"


def test_messages_that_would_not_arrive_whole_are_not_sent():
    one, other = connect()
    with one, other:
        send(one, Failed("x" * (LARGEST_MESSAGE - 100)))
        assert len(receive(other, Failed).why) == LARGEST_MESSAGE - 100
        with pytest.raises(ValueError, match="too large"):
            send(one, Failed("x" * LARGEST_MESSAGE))


async def test_what_a_worker_could_not_compute_for_the_event_loop_is_computed(engine, busy_scheduler, folder):
    model = engine.load("gradients", folder / "gradients")
    know(engine, model)
    worker = engine._device._workers[LANE]
    worker._models[model.computation] = 99  # it knows no such model
    learnt = await asyncio.wait_for(busy_scheduler.run(adapt_job(model, task("gradients", 0))), 60)
    assert learnt.value.answers.finite
    assert engine._device._workers[LANE] is worker


def test_states_made_by_a_worker_are_read_by_all(engine, worker, model):
    loaded, tasks = model
    width = loaded.description.head_width(tasks[0].ways)
    adapted, _ = by_worker(engine, worker, lambda: loaded.adapt(tasks, loaded.description.traits.default_steps, width))
    here = loaded.predict([one.state for one in adapted], [one.x for one in tasks])
    there, _ = by_worker(
        engine, worker, lambda: loaded.predict([one.state for one in adapted], [one.x for one in tasks])
    )
    for one, other in zip(here, there, strict=True):
        found, wanted = (given.logits if given.values is None else given.values for given in (one, other))
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_what_a_worker_can_not_compute_is_computed_by_the_process_itself(engine, worker, model, monkeypatch):
    def refuse(*_):
        raise WorkerError("no")

    monkeypatch.setattr(Worker, "run", refuse)
    (losses, values), asked = by_worker(engine, worker, lambda: answers(*model))
    assert len(asked) == 2
    assert len(losses) == len(values) == 3


def test_a_worker_that_dies_takes_no_batch_with_it_and_is_replaced(engine, folder):
    worker, model = started(), engine.load("gradients", folder / "gradients")
    successors = []

    def die_and_answer():
        os.kill(worker._process.pid, signal.SIGKILL)
        worker._process.wait()
        given = answers(model, [task("gradients", 0)])
        successors.append(engine._device._workers[LANE])
        return given

    (_, values), _ = by_worker(engine, worker, die_and_answer)
    assert np.isfinite(values[0]).all()
    assert successors[0] is not worker
    successors[0].stop()


def test_a_worker_forgets_models_that_are_gone(engine, worker, folder):
    for name in ("gradients", "prototypes", "regression"):
        model = engine.load(name, folder / name)
        assert by_worker(engine, worker, lambda name=name, model=model: answers(model, [task(name, 0)]))[0]
        del model
        gc.collect()
    assert len(worker._models) == 0
    assert len(worker._forgotten) == 1, "those before were told to it with the next"


def test_a_lane_whose_process_cannot_be_started_computes_by_itself(engine, model, monkeypatch):
    def refuse():
        raise OSError("too many open files")

    monkeypatch.setattr(cpu_device, "Worker", refuse)
    results = []

    def lane():
        engine.enter_lane(1)
        results.append(answers(*model))

    thread = Thread(target=lane)
    thread.start()
    thread.join()
    assert len(results[0][1]) == 3


def test_a_model_that_can_not_be_passed_on_is_computed_by_the_process_itself(engine, folder, monkeypatch):
    monkeypatch.setattr(
        "innerloop_server.engine.pytorch.worker.STAGING_BYTES", 2048
    )  # a batch fits, the parameters do not
    worker = started()
    (_, values), asked = by_worker(
        engine, worker, lambda: answers(engine.load("prototypes", folder / "prototypes"), [task("prototypes", 0)])
    )
    worker.stop()
    assert len(asked) == 2
    assert np.isfinite(values[0]).all()


def test_a_worker_that_cannot_be_started_leaves_no_descriptors(monkeypatch):
    def refuse(*_, **__):
        raise OSError("no more processes")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    before = open_descriptors()
    with pytest.raises(OSError, match="no more processes"):
        Worker()
    assert open_descriptors() == before


def open_descriptors():
    """Numbers that are in use, without that of the look at them."""
    return {int(path.name) for path in Path("/proc/self/fd").iterdir() if path.exists()}

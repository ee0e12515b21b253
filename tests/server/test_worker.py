"""Processes that compute for the engine: equal answers, and nothing lost when one dies."""

import asyncio
import gc
import math
import os
import signal
import socket
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from bundles import FIXED_WAYS, IMAGE, write_models, write_weighing

from innerloop_server.domain.callers import Caller
from innerloop_server.domain.deadline import Deadline
from innerloop_server.domain.tasks import SupportSet
from innerloop_server.domain.timings import Operation
from innerloop_server.engine.encoding import EncodedModel
from innerloop_server.engine.interface import AbandonedError, AdaptBatch, PredictBatch, QueryGroup, WorkerError
from innerloop_server.engine.pytorch.engine import TorchEngine, TorchSettings
from innerloop_server.engine.pytorch.worker import TorchWorker
from innerloop_server.engine.pytorch.worker_messages import Failed
from innerloop_server.ipc.packets import (
    LARGEST_PACKET,
    packet_sockets,
    receive_packet,
    receive_packet_with_descriptors,
    send_packet,
)
from innerloop_server.scheduling.admission import QueueLimits
from innerloop_server.scheduling.buckets import adapt_bucket
from innerloop_server.scheduling.job import AdaptJob
from innerloop_server.scheduling.lanes import Lanes
from innerloop_server.scheduling.policy import BatchLimits
from innerloop_server.scheduling.scheduler import Scheduler


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write_models(tmp_path_factory.mktemp("models"))
    write_weighing(folder / "weighing")
    return folder


@pytest.fixture
def engine():
    return TorchEngine(TorchSettings("cpu", lanes=2))


@pytest.fixture(scope="module")
def worker():
    worker = started()
    yield worker
    worker.stop()


def started():
    worker = TorchWorker()
    worker.receive()
    return worker


def task(name, seed):
    random = np.random.default_rng(seed)
    if name == "regression":
        x = random.normal(size=(5, 1)).astype(np.float32)
        return SupportSet(x, np.sin(x), 0)
    shots = 3 + seed if name == "weighing" else 1
    x = random.integers(0, 256, (5 * shots, *IMAGE), np.uint8)
    return SupportSet(x, np.tile(np.arange(5), shots), 5)


@pytest.fixture(params=["prototypes", "gradients", "regression", "weighing"])
def model(request, engine, folder):
    return engine.load(request.param, folder / request.param), [task(request.param, seed) for seed in range(3)]


def adapt_batch(model, tasks, *, asks=True):
    """Tasks, of which the first and the last bring queries of like size."""
    description = model.description
    groups = [QueryGroup([0, 2], [tasks[0].x[:2], tasks[2].x[:2]]), QueryGroup([1], [tasks[1].x[:5]])]
    steps, width = description.traits.default_steps, description.head_width(tasks[0].ways)
    return AdaptBatch(tasks, steps, width, groups if asks else [])


def by_worker(worker, model, batch):
    """What a worker gives for a batch."""
    model.send(batch, worker)
    return model.take(batch, worker.receive(), worker)


def computed(by, model, batch):
    """What a thread or a worker, started for it, gives for a batch."""
    if by == "thread":
        return model.compute(batch, alone=True)
    worker = started()
    result = by_worker(worker, model, batch)
    worker.stop()
    return result


def numbers(answers):
    return answers.logits if answers.values is None else answers.values


def test_an_inner_loop_ends_between_two_steps_when_nobody_waits_for_it_any_more(worker, engine, folder):
    model, tasks = engine.load("gradients", folder / "gradients"), [task("gradients", 0)]
    endless = AdaptBatch(tasks, 10**6, 5, abandoned=lambda: True)
    with pytest.raises(AbandonedError):
        model.compute(endless, alone=True)
    model.send(endless, worker)
    worker.abandon()
    with pytest.raises(AbandonedError):
        model.take(endless, worker.receive(), worker)
    assert_equal(
        by_worker(worker, model, replace(endless, steps=2)), model.compute(AdaptBatch(tasks, 2, 5), alone=False)
    )


def assert_equal(found, wanted):
    for one, other in zip(found.adapted, wanted.adapted, strict=True):
        np.testing.assert_allclose(one.losses, other.losses, rtol=1e-5)
        np.testing.assert_allclose(one.weights, other.weights, rtol=1e-4)
    assert len(found.answers) == len(wanted.answers)
    for one, other in zip(found.answers, wanted.answers, strict=True):
        assert (one.values is None, one.probabilities is None) == (other.values is None, other.probabilities is None)
        np.testing.assert_allclose(numbers(one), numbers(other), rtol=1e-4, atol=1e-5)
    assert found.seconds.keys() == wanted.seconds.keys()


@pytest.mark.parametrize("asks", [True, False])
def test_a_worker_gives_what_the_process_itself_gives(worker, model, asks):
    loaded, tasks = model
    batch = adapt_batch(loaded, tasks, asks=asks)
    found = by_worker(worker, loaded, batch)
    assert len(found.answers) == 3 * asks
    assert_equal(found, loaded.compute(batch, alone=True))


def test_states_made_by_a_worker_are_read_by_all(worker, model):
    loaded, tasks = model
    states = [one.state for one in by_worker(worker, loaded, adapt_batch(loaded, tasks)).adapted]
    batch = PredictBatch(states, [task.x[: 1 + index] for index, task in enumerate(tasks)])
    assert_equal(by_worker(worker, loaded, batch), loaded.compute(batch, alone=False))


def test_answers_stay_as_they_were_when_the_worker_computes_the_next(worker, model):
    loaded, tasks = model
    first = by_worker(worker, loaded, adapt_batch(loaded, tasks))
    before = [np.array(numbers(answers)) for answers in first.answers]
    by_worker(worker, loaded, adapt_batch(loaded, tasks[::-1]))
    for answers, kept in zip(first.answers, before, strict=True):
        np.testing.assert_array_equal(numbers(answers), kept)


class Inverting:
    """An encoder of images, whose features are images."""

    spec = SimpleNamespace(shape=IMAGE, input="images", rate=0)

    def encode(self, images):
        return 255 - images


def test_what_follows_an_encoder_is_computed_by_a_worker_and_never_sent_by_the_event_loop(worker, engine, folder):
    plain, tasks = engine.load("gradients", folder / "gradients"), [task("gradients", seed) for seed in range(3)]
    model = EncodedModel(plain, Inverting())
    assert model.computed_by_workers
    batch = adapt_batch(plain, tasks)
    assert model.bytes_to_copy(batch, worker) == math.inf
    found = by_worker(worker, model, batch)
    assert found.encoder_seconds > 0
    assert_equal(found, model.compute(batch, alone=True))
    asked = PredictBatch([one.state for one in found.adapted], [each.x for each in tasks])
    assert_equal(by_worker(worker, model, asked), model.compute(asked, alone=True))


def test_what_is_copied_to_a_worker_is_counted(worker, engine, folder):
    model, tasks = engine.load("gradients", folder / "gradients"), [task("gradients", seed) for seed in range(3)]
    batch = adapt_batch(model, tasks, asks=False)
    inputs = sum(task.x.nbytes + task.y.nbytes for task in tasks)
    params = sum(tensor.nbytes for tensor in model.computation.params.values())
    assert model.bytes_to_copy(batch, worker) == inputs + params, "it does not know the model yet"
    states = [one.state for one in by_worker(worker, model, batch).adapted]
    assert model.bytes_to_copy(batch, worker) == inputs + 3 * states[0].size_bytes
    asked = PredictBatch(states[:2], [tasks[0].x, tasks[1].x])
    assert model.bytes_to_copy(asked, worker) == 2 * (tasks[0].x.nbytes + states[0].size_bytes)


def test_a_worker_says_why_it_can_not_compute_and_goes_on(worker, engine, folder):
    model = engine.load("gradients", folder / "gradients")
    batch = adapt_batch(model, [task("gradients", seed) for seed in range(3)])
    worker._models[model.computation] = 99
    with pytest.raises(WorkerError, match="it knows no such model"):
        by_worker(worker, model, batch)
    del worker._models[model.computation]
    with pytest.raises(WorkerError, match="RuntimeError"):
        by_worker(
            worker, model, replace(batch, tasks=[SupportSet(each.x[:, :, 1:], each.y, 5) for each in batch.tasks])
        )
    assert by_worker(worker, model, batch).answers


def test_a_worker_forgets_models_that_are_gone(worker, engine, folder):
    gc.collect()
    for name in ("gradients", "prototypes", "regression"):
        model = engine.load(name, folder / name)
        assert by_worker(worker, model, adapt_batch(model, [task(name, seed) for seed in range(3)])).answers
        del model
        gc.collect()
    assert len(worker._models) == 0
    assert len(worker._forgotten) == 1, "those before were told to it with the next"


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("innerloop_server.engine.pytorch.worker.MEMORY_BYTES", 64, "more than the 64 of the shared memory"),
        ("innerloop_server.ipc.packets.LARGEST_PACKET", 64, "message is too large"),
    ],
)
def test_what_can_not_be_passed_on_is_refused(engine, folder, monkeypatch, setting, value, reason):
    monkeypatch.setattr(setting, value)
    worker = started()
    model = engine.load("prototypes", folder / "prototypes")
    with pytest.raises(WorkerError, match=reason):
        model.send(adapt_batch(model, [task("prototypes", seed) for seed in range(3)]), worker)
    worker.stop()


def test_a_worker_that_has_ended_is_told_of(engine, folder):
    worker, model = started(), engine.load("prototypes", folder / "prototypes")
    os.kill(worker._process.pid, signal.SIGKILL)
    worker._process.wait()
    with pytest.raises(WorkerError):
        worker.receive()
    with pytest.raises(WorkerError):
        model.send(adapt_batch(model, [task("prototypes", seed) for seed in range(3)]), worker)
    worker.stop()


def test_a_worker_beats_also_while_it_computes_and_not_while_it_is_stopped(engine, folder):
    worker, model = started(), engine.load("gradients", folder / "gradients")
    endless = AdaptBatch([task("gradients", 0)], 10**6, 5)

    def beats_on():
        before = worker.beats()
        time.sleep(1.2)
        return worker.beats() > before

    model.send(endless, worker)
    assert beats_on()
    os.kill(worker._process.pid, signal.SIGSTOP)
    time.sleep(0.1)
    assert not beats_on()
    worker.stop()


def test_a_worker_that_cannot_be_started_leaves_no_descriptors(monkeypatch):
    def refuse(*_, **__):
        raise OSError("no more processes")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    before = open_descriptors()
    with pytest.raises(OSError, match="no more processes"):
        TorchWorker()
    assert open_descriptors() == before


def test_telling_a_worker_of_a_model_leaves_no_descriptors(worker, engine, folder):
    model = engine.load("prototypes", folder / "prototypes")
    batch, before = adapt_batch(model, [task("prototypes", seed) for seed in range(3)]), open_descriptors()
    by_worker(worker, model, batch)
    assert open_descriptors() == before
    assert not [each for each in targets(worker._process.pid) if "innerloop-model" in each]


def open_descriptors():
    """Numbers that are in use, without that of the look at them."""
    return {int(path.name) for path in Path("/proc/self/fd").iterdir() if path.exists()}


def targets(process):
    return [str(path.readlink()) for path in Path(f"/proc/{process}/fd").iterdir()]


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_cpu_of_one_lane_needs_no_worker(lanes):
    worker = TorchEngine(TorchSettings("cpu", lanes=lanes)).start_worker()
    assert (worker is not None) == (lanes > 1)
    if worker is not None:
        worker.stop()


@pytest.fixture
async def scheduler(engine, metrics):
    """A scheduler of two lanes that have workers."""
    lanes = Lanes(engine.threads, engine.start_worker)
    await lanes.start()
    limits = BatchLimits(8, 10**8), QueueLimits(100, 10**8, seconds=60.0)
    scheduler = Scheduler(lanes, engine.lanes, *limits, dict.fromkeys(Operation, 1.0), metrics)
    yield scheduler
    scheduler.stop()
    assert await lanes.stop(5)


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
        Caller("anybody"),
        support=support,
        steps=steps,
        width=width,
        query=support.x,
    )


async def test_requests_side_by_side_are_computed_by_workers_and_lose_nothing_when_one_dies(
    engine, scheduler, folder, monkeypatch
):
    model, support = engine.load("gradients", folder / "gradients"), task("gradients", 0)
    (expected,) = model.compute(
        AdaptBatch([support], model.description.traits.default_steps, FIXED_WAYS, [QueryGroup([0], [support.x])]),
        alone=True,
    ).answers
    lane, other = scheduler._lanes._lanes
    process = lane._worker._worker._process
    with lane._side_by_side.counted():  # something else is computed
        monkeypatch.setattr(type(model), "compute", None)  # what threads call
        _, answers = (await asyncio.wait_for(scheduler.run(adapt_job(model, support)), 60)).value
        np.testing.assert_allclose(answers.probabilities, expected.probabilities, rtol=1e-4, atol=1e-6)
        monkeypatch.undo()
        os.kill(process.pid, signal.SIGSTOP)
        waiting = asyncio.create_task(scheduler.run(adapt_job(model, support)))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        os.kill(process.pid, signal.SIGKILL)
        _, answers = (await asyncio.wait_for(waiting, 60)).value
    np.testing.assert_allclose(answers.probabilities, expected.probabilities, rtol=1e-4, atol=1e-6)
    assert lane._worker._worker._process is not process
    assert other._worker is not None


def test_messages_that_would_not_arrive_whole_are_not_sent():
    one, other = packet_sockets()
    with one, other:
        send_packet(one, Failed("x" * (LARGEST_PACKET - 100)))
        assert len(receive_packet(other, Failed).why) == LARGEST_PACKET - 100
        with pytest.raises(ValueError, match="too large"):
            send_packet(one, Failed("x" * LARGEST_PACKET))


def test_a_descriptor_arrives_with_its_message():
    one, other = packet_sockets()
    with one, other, socket.socket() as sent:
        send_packet(one, Failed("with"), [sent.fileno()])
        send_packet(one, Failed("without"))
        message, (descriptor,) = receive_packet_with_descriptors(other, Failed)
        os.close(descriptor)
        assert message.why == "with"
        assert receive_packet_with_descriptors(other, Failed) == (Failed("without"), [])

"""Programs that are captured once and replayed on other inputs, without a GPU: operations are recorded instead."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from bundles import write_models
from fakes import EarlyCopies
from recorded_graph import RecordedGraph, record

from innerloop_learner.bundle import load_bundle
from innerloop_server.domain.tasks import SupportSet
from innerloop_server.engine.pytorch import model as torch_model
from innerloop_server.engine.pytorch.compiling import compiled
from innerloop_server.engine.pytorch.cpu_device import CpuDevice
from innerloop_server.engine.pytorch.cuda_device import CudaDevice
from innerloop_server.engine.pytorch.model import TorchModel
from innerloop_server.engine.pytorch.state_memory import PAGE_BYTES, StateMemory


class Event:
    def record(self, stream):
        pass

    def synchronize(self):
        pass


class RecordingDevice(CudaDevice):
    """A CUDA device on the CPU; counts replays."""

    def empty(self, shape, dtype):
        return torch.empty(tuple(shape), dtype=dtype)


@pytest.fixture
def device(monkeypatch):
    for name, stand_in in {
        "Stream": lambda *_: None,
        "graph_pool_handle": lambda: None,
        "device": nullcontext,
        "stream": nullcontext,
        "synchronize": lambda *_: None,
        "Event": Event,
        "CUDAGraph": RecordedGraph,
        "graph": record,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    device = RecordingDevice(torch.device("cpu"))
    device.usual_batch = device.largest_batch = 4
    return device


@pytest.fixture(params=["prototypes", "gradients", "regression"])
def models(request, device, tmp_path):
    """The same bundle on the recording device, prepared, and on a plain CPU."""
    bundle = load_bundle(write_models(tmp_path) / request.param)
    made = []
    for where in (device, CpuDevice(1, 1)):
        made.append(TorchModel("it", bundle, where, StateMemory(torch.device("cpu"), 2**24), "float32"))
        made[-1].prepare()
    return made


def task(model, seed, shots):
    random = np.random.default_rng(seed)
    shape = model.description.input_shape
    if model.description.traits.task_kind == "regression":
        x = random.normal(size=(5 * shots, *shape)).astype(np.float32)
        return SupportSet(x, np.sin(x), 0)
    return SupportSet(random.integers(0, 256, (5 * shots, *shape), np.uint8), np.arange(5 * shots) % 5, 5)


def answers(model, tasks, queries):
    width = model.description.head_width(tasks[0].ways)
    adapted = model.adapt(tasks, model.description.traits.default_steps, width)
    given = model.predict([one.state for one in adapted], queries)
    return [one.losses for one in adapted], [one.probabilities if one.values is None else one.values for one in given]


@pytest.mark.parametrize("count", [1, 3, 4])
def test_replayed_programs_answer_as_plain_ones_whatever_was_replayed_before(models, device, count):
    replayed = []
    for key, program in list(device._captured.items()):
        run = program.replay
        device._captured[key] = program._replace(replay=lambda run=run, key=key: (replayed.append(key[1]), run()))
    for seed in range(2):
        tasks = [task(models[0], 10 * seed + index, 1) for index in range(count)]
        queries = [task(models[0], 100 + index, 1).x[: 1 + index] for index in range(count)]
        (losses, values), (expected_losses, expected) = (answers(model, tasks, queries) for model in models)
        np.testing.assert_allclose(losses, expected_losses, rtol=1e-4)
        for found, wanted in zip(values, expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert replayed == ["adapt", "predict"] * 2


def test_expected_states_are_fetched_once_the_device_has_something_to_do(device, tmp_path):
    bundle = load_bundle(write_models(tmp_path) / "prototypes")
    memory = StateMemory(torch.device("cpu"), 2 * PAGE_BYTES, 4 * PAGE_BYTES, EarlyCopies())
    model, inside = TorchModel("it", bundle, device, memory, "float32"), []
    device.on_launch = lambda: (inside.append(device._lock._is_owned()), memory.prefetch())
    given = [task(model, seed, 1) for seed in range(3)]
    (first,), *_others = [model.adapt([one], 0, 8) for one in given]
    assert not first.state.place.on_device
    model.prefetch(first.state)
    model.adapt(given[:1], 0, 8)
    assert first.state.place.on_device
    assert all(inside), "what is copied has its place in the order of the device's work"


def test_states_are_brought_to_the_device_in_the_order_of_its_work(models, device, monkeypatch):
    model, claim, inside = models[0], StateMemory.claim, []

    def note(memory, states):
        inside.append(device._lock._is_owned())
        return claim(memory, states)

    monkeypatch.setattr(StateMemory, "claim", note)
    model.prepare()
    assert inside
    assert all(inside)


def test_what_was_not_captured_runs_all_the_same(models):
    many = [task(models[0], 0, 3)] * 7
    (losses, values), (expected_losses, expected) = (answers(model, many, [one.x for one in many]) for model in models)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-4)
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)


def test_a_model_that_cannot_be_captured_serves_without(device, tmp_path, monkeypatch):
    def refuse(*_):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(RecordedGraph, "__enter__", refuse)
    bundle = load_bundle(write_models(tmp_path) / "gradients")
    model = TorchModel("it", bundle, device, StateMemory(torch.device("cpu"), 2**24), "float32")
    model.prepare()
    assert not device._captured
    assert answers(model, [task(model, 0, 1)], [task(model, 1, 1).x])


def test_compiling_holds_up_no_request(device, tmp_path, monkeypatch):
    held = []

    def noting(learner):
        twin = compiled(learner, "eager")
        apply = twin.backbone.apply

        def noted(*arguments):
            held.append(device._lock._is_owned())
            return apply(*arguments)

        twin.backbone.apply = noted
        return twin

    monkeypatch.setattr(torch_model, "compiled", noting)
    monkeypatch.setattr(torch.cuda, "Stream", lambda *_: Event())
    bundle = load_bundle(write_models(tmp_path) / "gradients")
    model = TorchModel("it", bundle, device, StateMemory(torch.device("cpu"), 2**24), "float32")
    device.usual_batch = 1
    model.prepare()
    held.clear()
    model.compile()
    assert 0 < 3 * held.count(False) == held.count(True), "of four runs of each program, the first, which compiles"

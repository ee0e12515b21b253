"""The PyTorch engine: a batch gives what each request alone gives, and keeps nothing it should not."""

import gc
import os
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from bundles import IMAGE, write_bundle, write_models

from innerloop_learner.layers import TASK_CONVOLUTIONS
from innerloop_learner.learner import build_learner
from innerloop_learner.spec import InputSpec, LearnerSpec
from innerloop_learner.tasks import Support
from innerloop_server.domain.tasks import SupportSet
from innerloop_server.engine import query_chunks
from innerloop_server.engine.interface import LoadError, MemoryFullError
from innerloop_server.engine.pytorch import cpu_device
from innerloop_server.engine.pytorch import model as torch_model
from innerloop_server.engine.pytorch.choose_device import choose_device
from innerloop_server.engine.pytorch.compiling import compiled
from innerloop_server.engine.pytorch.computation import MOST_CHOICES
from innerloop_server.engine.pytorch.engine import TorchEngine, TorchSettings
from innerloop_server.engine.pytorch.thread_choice import TRIALS, ThreadChoice

NAMES = ("prototypes", "gradients", "regression")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def models(folder):
    engine = TorchEngine(TorchSettings("cpu"))
    return {name: engine.load(name, folder / name) for name in NAMES}


def image_task(seed, ways, shots, shape=IMAGE):
    random = np.random.default_rng(seed)
    x = random.integers(0, 256, (ways * shots, *shape), dtype=np.uint8)
    return SupportSet(x, np.tile(np.arange(ways), shots), ways)


def curve_task(seed, shots):
    random = np.random.default_rng(seed)
    x = random.normal(size=(shots, 1)).astype(np.float32)
    return SupportSet(x, np.sin(x), 0)


BATCHES = {
    "prototypes": ([image_task(0, 5, 1), image_task(1, 3, 4), image_task(2, 8, 2)], 0, 8),
    "gradients": ([image_task(0, 5, 1), image_task(1, 2, 7), image_task(2, 4, 2)], 3, 5),
    "regression": ([curve_task(0, 5), curve_task(1, 10), curve_task(2, 1)], 2, 0),
}


@pytest.mark.parametrize("name", BATCHES)
def test_a_batch_of_unequal_requests_gives_what_each_alone_gives(models, name):
    model, (tasks, steps, width) = models[name], BATCHES[name]
    queries = [np.concatenate([task.x, task.x])[: 3 + index] for index, task in enumerate(tasks)]
    together = model.adapt(tasks, steps, width)
    answers = model.predict([adapted.state for adapted in together], queries)
    for task, query, adapted, answer in zip(tasks, queries, together, answers, strict=True):
        (alone,) = model.adapt([task], steps, width)
        (expected,) = model.predict([alone.state], [query])
        assert adapted.losses == pytest.approx(alone.losses, rel=1e-4)
        for found, wanted in [(answer.probabilities, expected.probabilities), (answer.values, expected.values)]:
            assert (found is None) == (wanted is None)
            if found is not None:
                assert found.shape == (len(query), task.ways or 1)
                np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["gradients", "regression"])
@pytest.mark.parametrize("form", TASK_CONVOLUTIONS)
def test_a_task_that_diverges_does_not_touch_those_beside_it(folder, name, form):
    model, (tasks, steps, width) = TorchEngine(TorchSettings("cpu")).load(name, folder / name), BATCHES[name]
    model.computation.convolve_tasks_by(form)
    tasks = [replace(task, x=task.x.astype(np.float32)) for task in tasks]
    wild = replace(tasks[1], x=tasks[1].x * np.float32(1e30), y=tasks[1].y * (1 if name == "gradients" else 1e30))
    together = model.adapt([tasks[0], wild, tasks[2]], steps, width)
    answers = model.predict([adapted.state for adapted in together], [task.x for task in tasks])
    assert not (np.isfinite(together[1].losses).all() and answers[1].finite)
    for index in (0, 2):
        (alone,) = model.adapt([tasks[index]], steps, width)
        (expected,) = model.predict([alone.state], [tasks[index].x])
        assert together[index].losses == pytest.approx(alone.losses, rel=1e-4)
        found, wanted = (each.values if name == "regression" else each.logits for each in (answers[index], expected))
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_probabilities_are_the_softmax_of_the_logits_over_the_tasks_own_ways(models):
    task = image_task(0, 3, 2)
    (adapted,) = models["prototypes"].adapt([task], 0, 8)
    (answer,) = models["prototypes"].predict([adapted.state], [task.x])
    exponents = np.exp(answer.logits - answer.logits.max(1, keepdims=True))
    np.testing.assert_allclose(answer.probabilities, exponents / exponents.sum(1, keepdims=True), rtol=1e-5)
    assert answer.finite


def test_floats_in_raw_units_answer_as_uint8_does(models):
    task = image_task(0, 3, 2)
    as_floats = SupportSet(task.x.astype(np.float32), task.y, task.ways)
    states = [models["prototypes"].adapt([version], 0, 4)[0].state for version in (task, as_floats)]
    answers = [models["prototypes"].predict([state], [task.x])[0].logits for state in states]
    np.testing.assert_allclose(*answers, rtol=1e-5)  # on one thread or several


def test_a_task_state_takes_whole_pages_and_frees_them_when_nothing_refers_to_it(folder):
    engine = TorchEngine(TorchSettings("cpu"))
    model = engine.load("gradients", folder / "gradients")
    adapted = model.adapt([image_task(seed, 5, 1) for seed in range(8)], 1, 5)
    size = adapted[0].state.size_bytes
    assert size % 1024 == 0
    assert engine.memory()["cpu", "states"] == 8 * size
    del adapted[2:]
    gc.collect()
    assert engine.memory()["cpu", "states"] == 2 * size


def test_preparing_chooses_how_tasks_share_convolutions_and_leaves_answers_as_they_were(tmp_path):
    spec = LearnerSpec(
        "maml", InputSpec((1, 16, 16), "uint8"), max_ways=5, backbone_settings={"width": 8}, settings={"rate": 0.01}
    )
    write_bundle(tmp_path / "conv", spec)
    model, task = TorchEngine(TorchSettings("cpu")).load("conv", tmp_path / "conv"), image_task(0, 5, 1, (1, 16, 16))
    answers = []
    for _ in range(2):
        (adapted,) = model.adapt([task], 2, 5)
        answers.append(model.predict([adapted.state], [task.x])[0].probabilities)
        model.prepare()
    assert model.computation.task_convolution in TASK_CONVOLUTIONS
    np.testing.assert_allclose(*answers, atol=1e-5)


def test_bfloat16_answers_nearly_as_float32_does(folder):
    task, answers = image_task(0, 5, 2), []
    for precision in ("float32", "bfloat16"):
        model = TorchEngine(TorchSettings("cpu", precision=precision)).load("gradients", folder / "gradients")
        (adapted,) = model.adapt([task], 3, 5)
        answers.append(model.predict([adapted.state], [task.x])[0].probabilities)
    assert not np.array_equal(*answers)
    np.testing.assert_allclose(*answers, atol=0.02)


def test_states_that_do_not_fit_are_refused_and_those_that_are_there_stay(folder, monkeypatch):
    monkeypatch.setattr("innerloop_server.engine.states.budget.LEAST_ROOM", 0)
    engine = TorchEngine(TorchSettings("cpu", state_bytes=64 * 1024))
    model, task = engine.load("gradients", folder / "gradients"), image_task(0, 5, 1)
    kept = [model.adapt([task], 1, 5)[0].state]
    before = model.predict(kept, [task.x])[0].logits
    with pytest.raises(MemoryFullError):
        model.adapt([task] * 64, 1, 5)
    np.testing.assert_array_equal(model.predict(kept, [task.x])[0].logits, before)


def test_states_that_left_the_device_for_the_host_answer_as_before(folder, monkeypatch):
    monkeypatch.setattr("innerloop_server.engine.states.budget.LEAST_ROOM", 0)
    engine = TorchEngine(TorchSettings("cpu", state_bytes=32 * 1024, host_state_bytes=2**20))
    model, tasks = engine.load("gradients", folder / "gradients"), [image_task(seed, 5, 1) for seed in range(30)]
    states = [model.adapt([task], 1, 5)[0].state for task in tasks]
    assert engine.memory()["host", "states"] > 0
    roomy = TorchEngine(TorchSettings("cpu")).load("gradients", folder / "gradients")
    for state, task in zip(states, tasks, strict=True):
        (expected,) = roomy.predict([roomy.adapt([task], 1, 5)[0].state], [task.x])
        np.testing.assert_allclose(model.predict([state], [task.x])[0].logits, expected.logits, atol=1e-5)


def test_a_bad_bundle_is_refused_with_a_reason_free_of_paths(tmp_path):
    with pytest.raises(LoadError) as refused:
        TorchEngine(TorchSettings("cpu")).load("missing", tmp_path / "missing")
    assert str(tmp_path) not in str(refused.value)


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(LoadError, match="cuda:99"):
        TorchEngine(TorchSettings("cuda:99"))


def test_says_how_much_memory_it_uses():
    assert TorchEngine(TorchSettings("cpu")).memory()["cpu", "resident"] > 2**20


def test_queries_answered_in_chunks_are_answered_as_in_one(models, monkeypatch):
    tasks = [image_task(seed, 5, 2) for seed in range(3)]
    states = [adapted.state for adapted in models["prototypes"].adapt(tasks, 0, 8)]
    queries = [task.x[: 4 + index] for index, task in enumerate(tasks)]
    whole = models["prototypes"].predict(states, queries)
    monkeypatch.setattr(query_chunks, "EXAMPLES_AT_ONCE", 7)
    for part, expected in zip(models["prototypes"].predict(states, queries), whole, strict=True):
        np.testing.assert_allclose(part.logits, expected.logits, rtol=1e-5, atol=1e-5)


class MostThreads(ThreadChoice):
    """Takes as many as it may."""

    def next(self):
        return max(self._choices)


class Calling:
    """A program that calls a function."""

    key = None
    inputs = ()
    learner = None

    def __init__(self, function):
        self._function = function
        self.computation = SimpleNamespace(thread_choice=lambda _, choices: MostThreads(choices))

    def run(self, learner):
        del learner
        self._function()
        return ()


def test_a_computation_alone_gets_half_of_the_cores_and_each_of_several_gets_one(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    device, threads, before = choose_device("cpu", None, None), [], torch.get_num_threads()
    assert device.lanes == 6

    def note():
        threads.append(torch.get_num_threads())

    device.run(Calling(note), alone=True)
    device.run(Calling(note), alone=False)
    device.run(Calling(note), alone=True)
    torch.set_num_threads(before)
    assert threads == [3, 1, 3]


def test_a_lone_request_tries_both_numbers_of_threads(folder, monkeypatch):
    taken = []
    monkeypatch.setattr(cpu_device.torch, "set_num_threads", taken.append)
    model, task = (
        TorchEngine(TorchSettings("cpu", threads=3, lanes=1)).load("gradients", folder / "gradients"),
        image_task(0, 5, 1),
    )
    for _ in range(2 * TRIALS):
        model.adapt([task], 1, 5)
    assert taken == [3, 1]
    other = image_task(0, 5, 2)  # of another size, which has trials of its own
    model.adapt([other], 1, 5)
    assert taken == [3, 1, 3]


def test_choices_of_threads_are_kept_for_few_sizes(folder):
    model, task = (
        TorchEngine(TorchSettings("cpu", threads=2, lanes=1)).load("gradients", folder / "gradients"),
        image_task(0, 5, 1),
    )
    (adapted,) = model.adapt([task], 1, 5)
    for queries in range(1, MOST_CHOICES + 5):
        model.computation.thread_choice(queries, (1, 2))
    assert len(model.computation._thread_choices) <= MOST_CHOICES
    assert model.predict([adapted.state], [task.x])[0].finite


def test_a_compiled_model_answers_as_before(folder, monkeypatch):
    monkeypatch.setattr(torch_model, "compiled", partial(compiled, backend="aot_eager"))
    model, task = TorchEngine(TorchSettings("cpu")).load("gradients", folder / "gradients"), image_task(0, 5, 1)
    answers = []
    for _ in range(2):
        (adapted,) = model.adapt([task], model.description.traits.default_steps, 5)
        answers.append(model.predict([adapted.state], [task.x[:2]])[0].probabilities)
        model.compile()
    np.testing.assert_allclose(*answers, atol=1e-5)
    (adapted,) = model.adapt([image_task(0, 4, 3)], 1, 5)  # of a size that was not compiled for
    assert model.predict([adapted.state], [task.x])[0].finite


def test_the_backbone_is_what_is_compiled():
    learner = build_learner(
        LearnerSpec("anil", InputSpec((1, 8, 8)), backbone="mlp", backbone_settings={"widths": [4]})
    )
    twin = compiled(learner, "eager")
    assert twin.backbone.apply is not learner.backbone.apply
    assert twin.default_steps == learner.default_steps


def test_frozen_blocks_that_are_compiled_answer_as_before():
    settings, network = {"adapts": ["block2", "head"], "steps": 2}, {"width": 4, "norm": "batch"}
    spec = LearnerSpec("partial-maml", InputSpec((1, 16, 16)), max_ways=2, settings=settings, backbone_settings=network)
    learner = build_learner(spec)
    params = learner.init(torch.Generator().manual_seed(0))
    x, y, mask = torch.randn(1, 4, 1, 16, 16), torch.tensor([[0, 1, 0, 1]]), torch.ones(1, 4, dtype=torch.bool)
    support = Support(x, y, mask, torch.tensor([2]), 2)
    found, expected = (each.adapt(params, support).state for each in (compiled(learner, "eager"), learner))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_convolutions_are_timed_as_one_of_several_batches_computes_them(tmp_path, monkeypatch):
    write_bundle(tmp_path / "conv", LearnerSpec("maml", InputSpec((1, 16, 16), "uint8"), max_ways=5))
    model, timed = TorchEngine(TorchSettings("cpu", threads=2)).load("conv", tmp_path / "conv"), []
    adapt = model.adapt

    def noting(*arguments, alone=True):
        timed.append((alone, model._device._timing.locked()))
        return adapt(*arguments, alone=alone)

    monkeypatch.setattr(model, "adapt", noting)
    model.prepare()
    assert timed[2:] == [(False, True)] * (torch_model.TRIALS * len(TASK_CONVOLUTIONS))

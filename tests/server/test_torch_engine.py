"""The PyTorch engine: a batch gives what each request alone gives, and keeps nothing it should not."""

import os

import numpy as np
import pytest
from bundles import IMAGE, write_models

from innerloop_server.engine import torch_engine
from innerloop_server.engine.interface import LoadError, SupportSet
from innerloop_server.engine.torch_engine import TorchEngine


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder, engine = write_models(tmp_path_factory.mktemp("models")), TorchEngine("cpu")
    return {name: engine.load(folder / name) for name in ("prototypes", "gradients", "regression")}


def image_task(seed, ways, shots):
    random = np.random.default_rng(seed)
    x = random.integers(0, 256, (ways * shots, *IMAGE), dtype=np.uint8)
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
    np.testing.assert_array_equal(*answers)


def test_a_task_state_keeps_its_own_memory_only(models):
    tasks = [image_task(seed, 5, 1) for seed in range(8)]
    for name in ("prototypes", "gradients"):
        state = models[name].adapt(tasks, 1, 8 if name == "prototypes" else 5)[0].state
        held = sum(tensor.untyped_storage().nbytes() for tensor in state.tensors.values())
        assert held == state.size_bytes
        assert not any(tensor.requires_grad for tensor in state.tensors.values())


def test_a_bad_bundle_is_refused_with_a_reason_free_of_paths(tmp_path):
    with pytest.raises(LoadError) as refused:
        TorchEngine("cpu").load(tmp_path / "missing")
    assert str(tmp_path) not in str(refused.value)


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(LoadError, match="cuda:99"):
        TorchEngine("cuda:99")


def test_says_how_much_memory_it_uses():
    assert TorchEngine("cpu").memory()["cpu", "resident"] > 2**20


def test_queries_answered_in_parts_are_answered_as_in_one(models, monkeypatch):
    tasks = [image_task(seed, 5, 2) for seed in range(3)]
    states = [adapted.state for adapted in models["prototypes"].adapt(tasks, 0, 8)]
    queries = [task.x[: 4 + index] for index, task in enumerate(tasks)]
    whole = models["prototypes"].predict(states, queries)
    monkeypatch.setattr(torch_engine, "EXAMPLES_AT_ONCE", 7)
    for part, expected in zip(models["prototypes"].predict(states, queries), whole, strict=True):
        np.testing.assert_allclose(part.logits, expected.logits, rtol=1e-5, atol=1e-5)


def test_gives_a_computation_half_of_the_cores_also_where_the_system_does_not_say_which_it_may_use(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert torch_engine.default_threads() == 3

"""Examples that are learned into a task state without those before: as good as adapting anew to all of them."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
import torch
from bundles import IMAGE, MAX_WAYS, PROTOTYPES, WEIGHING, write_bundle
from test_updater import Updating, change
from test_worker import computed
from whole_server import ME, QUERY

from innerloop_server.adaptations.parts import KeptParts
from innerloop_server.adaptations.stores.memory import MemoryStore
from innerloop_server.adaptations.stores.sqlite import SqliteStore
from innerloop_server.domain.errors import ExamplesNotKeptError, InvalidRequestError
from innerloop_server.domain.tasks import SupportSet
from innerloop_server.domain.timings import Operation
from innerloop_server.engine.interface import ExtendBatch, StateMismatchError
from innerloop_server.engine.pytorch.engine import TorchEngine, TorchSettings

SPECS = {
    "prototypes": PROTOTYPES,
    "neighbours": replace(PROTOTYPES, method="knn"),
    "sequential": replace(PROTOTYPES, method="oml", max_ways=MAX_WAYS),
    "weighing": WEIGHING,
}
LEARNING = ["prototypes", "neighbours", "sequential"]


def random_support(seed, ways, size):
    random = np.random.default_rng(seed)
    y = np.concatenate([np.arange(ways), random.integers(0, ways, size - ways)])
    return SupportSet(random.integers(0, 256, (size, *IMAGE), np.uint8), y, ways)


def joined(one, other):
    return SupportSet(np.concatenate([one.x, other.x]), np.concatenate([one.y, other.y]), max(one.ways, other.ways))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, spec in SPECS.items():
        write_bundle(folder / name, spec)
    return folder


@pytest.mark.parametrize("name", LEARNING)
@pytest.mark.parametrize("by", ["thread", "worker"])
def test_a_batch_of_states_learns_what_each_would_learn_by_itself_and_with_all_examples_at_once(folder, name, by):
    model = TorchEngine(TorchSettings("cpu", lanes=2)).load(name, folder / name)
    steps, width = model.description.traits.default_steps, model.description.head_width
    before = [random_support(seed, ways, 4) for seed, ways in enumerate((2, 2, 2))]
    more = [random_support(10 + seed, ways, size) for seed, (ways, size) in enumerate(((3, 4), (4, 4), (3, 3)))]
    states = [each.state for each in model.adapt(before, steps, width(2))]
    batch = ExtendBatch(states, more, steps, width(4))
    result = computed(by, model, batch)
    assert result.seconds.keys() == {Operation.EXTEND}
    found = [model.predict([each.state], [QUERY])[0].probabilities for each in result.adapted]
    assert [each.shape[1] for each in found] == [3, 4, 3]
    for learned, first, second in zip(found, before, more, strict=True):
        (anew,) = model.adapt([joined(first, second)], steps, width(second.ways))
        wanted = model.predict([anew.state], [QUERY])[0].probabilities
        np.testing.assert_allclose(learned, wanted, rtol=1e-3, atol=1e-4)
    for state, first in zip(states, before, strict=True):  # those before are as they were
        (anew,) = model.adapt([first], steps, width(2))
        known = [model.predict([each], [QUERY])[0].probabilities for each in (state, anew.state)]
        np.testing.assert_allclose(*known, rtol=1e-4, atol=1e-5)


def test_a_state_of_before_states_could_learn_more_is_refused_as_one_of_another_version(folder):
    model = TorchEngine(TorchSettings("cpu", lanes=1)).load("prototypes", folder / "prototypes")
    (made,) = model.adapt([random_support(0, 2, 4)], 0, 2)
    layout = made.state.signature
    without = model.computation.layouts.of_shapes(tuple(each for each in layout.shapes if each[0] != "counts"))
    assert without is not layout
    rows = model._memory.read(torch.from_numpy(made.state.place.pages).unsqueeze(0))
    (old,) = model._keep(without, without.pack(layout.unpack(rows)), [2])
    with pytest.raises(StateMismatchError, match="adapt anew"):
        model.extend([old], [random_support(1, 2, 2)], 0, 2)


@pytest.fixture(params=["memory", "sqlite"])
async def server(request, folder, tmp_path, metrics):
    store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "store", synchronous=False)
    await store.open()
    running = Updating(folder, store, metrics)
    await running.repository.load_all()
    yield running
    await running.stop()
    await store.close()


@pytest.mark.parametrize("model", LEARNING)
async def test_an_adaptation_learns_examples_and_classes_though_none_before_are_kept(server, model):
    first, more = [(0, "b"), (1, "c"), (2, "c")], [[(3, "a")], [(4, "b"), (5, "d"), (6, "a")]]
    made = await server.learn(model, first, forget_examples=True)
    for number, examples in enumerate(more):
        result = await server.update(made, change(examples), request_id=f"r{number}")
        again = await server.update(made, change(examples), request_id=f"r{number}")
        assert result.adaptation.revision == again.adaptation.revision == number + 2
        assert not result.example_ids
    assert result.adaptation.support_size == 7
    classes, logits = await server.answers(made)
    assert classes == ("b", "c", "a", "d"), "those that were there keep their places"
    at_once = await server.learn(model, [*first, *more[0], *more[1]])
    known, wanted = await server.answers(at_once)
    np.testing.assert_allclose(logits, wanted[:, [known.index(label) for label in classes]], rtol=1e-3, atol=1e-3)
    with pytest.raises(ExamplesNotKeptError):
        await server.update(made, change(remove=(0,)))
    with pytest.raises(InvalidRequestError, match="at most 32"):
        await server.update(made, change([(n, f"new {n}") for n in range(40)]))
    assert (await server.serving.look(ME, made.id)).revision == 3


async def test_a_model_that_needs_the_examples_before_says_so(server):
    made = await server.learn("weighing", [(0, "a"), (1, "b")], forget_examples=True)
    with pytest.raises(ExamplesNotKeptError):
        await server.update(made, change([(2, "c")]))


async def test_examples_that_become_too_many_to_be_kept_are_learned_and_kept_no_more(folder, tmp_path, metrics):
    store = SqliteStore(tmp_path / "store", synchronous=False)
    await store.open()
    server = Updating(folder, store, metrics)
    server.keeper._parts = KeptParts(recipe_bytes=400)
    await server.repository.load_all()
    made = await server.learn("prototypes", [(n, "ab"[n % 2]) for n in range(4)])
    assert (await server.update(made, change([(4, "c")]))).example_ids == (4,)
    large = await server.update(made, change([(5, "d"), (6, "d")]))
    assert (large.adaptation.revision, large.example_ids) == (3, ())
    with pytest.raises(ExamplesNotKeptError):
        await server.listed(made)
    at_once = await server.learn("prototypes", [*((n, "ab"[n % 2]) for n in range(4)), (4, "c"), (5, "d"), (6, "d")])
    np.testing.assert_allclose(await server.predict(made), await server.predict(at_once), rtol=1e-4, atol=1e-4)
    heavy = await server.learn("weighing", [(n, "ab"[n % 2]) for n in range(4)])
    with pytest.raises(ExamplesNotKeptError, match="larger than the server keeps"):
        await server.update(heavy, change([(n, "c") for n in range(4)]))
    await server.stop()
    await store.close()


async def test_requests_to_learn_more_are_computed_in_batches(server, value):
    made = [await server.learn("prototypes", [(n, "a"), (n + 1, "b")], forget_examples=True) for n in range(8)]
    await asyncio.gather(*(server.update(each, change([(n, "c")])) for n, each in enumerate(made)))
    count = value("innerloop_batch_size_count", operation="extend", model="prototypes")
    assert value("innerloop_batch_size_sum", operation="extend", model="prototypes") == 8
    assert count < 8

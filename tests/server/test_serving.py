"""What the server does for its callers, whoever of them leaves in the middle of it, and whatever comes out."""

import asyncio
from unittest.mock import Mock

import numpy as np
import pytest
from bundles import IMAGE, write_models
from fakes import FakeState, keep

from innerloop_server.adaptations.keeper import Keeper
from innerloop_server.adaptations.parts import KeptParts
from innerloop_server.adaptations.stores.memory import MemoryStore
from innerloop_server.adaptations.stores.sqlite import SqliteStore
from innerloop_server.domain.adaptations import KeepOptions
from innerloop_server.domain.answers import Answers
from innerloop_server.domain.callers import Caller, OwnerLimits
from innerloop_server.domain.deadline import Deadline
from innerloop_server.domain.errors import AdaptationEvictedError, DivergedError, StoreUnavailableError
from innerloop_server.domain.tasks import AdaptTask, PredictTask, SupportSet
from innerloop_server.domain.timings import Operation
from innerloop_server.engine.interface import AdaptedTask
from innerloop_server.engine.pytorch.engine import TorchEngine, TorchSettings
from innerloop_server.models.repository import ModelRepository
from innerloop_server.scheduling.admission import QueueLimits
from innerloop_server.scheduling.job import Computed
from innerloop_server.scheduling.lanes import Lanes
from innerloop_server.scheduling.policy import BatchLimits
from innerloop_server.scheduling.scheduler import Scheduler
from innerloop_server.serving.local import LocalServing
from innerloop_server.serving.rate_limits import RateLimits

ME = Caller("me")


class SlowListener:
    """Takes for ever to hear that a model was removed."""

    async def model_changed(self, model):
        pass

    async def model_removed(self, name):  # noqa: ARG002
        await asyncio.Event().wait()


class Scripted:
    """A scheduler whose device always comes to the same values."""

    def __init__(self, value):
        self.value = value
        self.jobs = []

    def queries_at_once(self, model):  # noqa: ARG002
        return 100

    async def run(self, job):
        self.jobs.append(job)
        learnt = AdaptedTask(FakeState(), (0.7,)), Answers(values=np.full((1, 1), self.value, np.float32))
        return Computed(learnt, 0.0, 0.0, {})


async def test_a_task_whose_answers_are_no_numbers_is_not_kept_for_a_caller_who_never_hears_its_id(tmp_path, metrics):
    lanes = Lanes(1)
    repository = ModelRepository(write_models(tmp_path), TorchEngine(TorchSettings("cpu")), lanes.call, [])
    await repository.load("regression")
    await lanes.stop(5)
    keeper = Keeper(MemoryStore(), 1000, metrics)
    scheduler = Scripted(np.nan)  # diverged in the last step
    serving = LocalServing(repository, scheduler, keeper, metrics, RateLimits(OwnerLimits()))
    support = SupportSet(np.zeros((2, 1), np.float32), np.zeros((2, 1), np.float32), 0)
    task = AdaptTask(repository.get("regression").served, support, (), 1)
    for request_id in ("", "mine"):
        with pytest.raises(DivergedError):
            await serving.adapt_predict(ME, task, support.x[:1], KeepOptions(60.0, request_id), Deadline())
    assert not await keeper.list("me", "", None, 10)
    assert scheduler.jobs[-1].caller.limits.waiting is None
    limited = Caller("me", limits=OwnerLimits(waiting=7))
    with pytest.raises(DivergedError):
        await serving.adapt_predict(limited, task, support.x[:1], None, Deadline())
    assert scheduler.jobs[-1].caller.limits.waiting == 7, "a caller's own limit"


async def test_nothing_is_diagnosed_while_nothing_can_be_kept(tmp_path, metrics, monkeypatch):
    lanes = Lanes(1)
    repository = ModelRepository(write_models(tmp_path), TorchEngine(TorchSettings("cpu")), lanes.call, [])
    await repository.load("prototypes")
    await lanes.stop(5)
    store, scheduler = MemoryStore(), Scripted(0.0)
    monkeypatch.setattr(store, "admit", Mock(side_effect=StoreUnavailableError))
    keeper = Keeper(store, 1000, metrics)
    serving = LocalServing(repository, scheduler, keeper, metrics, RateLimits(OwnerLimits()))
    support = SupportSet(np.zeros((4, *IMAGE), np.uint8), np.arange(4) % 2, 2)
    task = AdaptTask(repository.get("prototypes").served, support, ("a", "b"), 0)
    with pytest.raises(StoreUnavailableError):
        await serving.adapt(ME, task, KeepOptions(60.0), Deadline(), diagnose=True)
    assert not scheduler.jobs


async def test_a_request_of_before_a_restart_makes_no_more_even_where_its_owner_may_have_no_more(tmp_path, metrics):
    lanes = Lanes(1)
    repository = ModelRepository(write_models(tmp_path), TorchEngine(TorchSettings("cpu")), lanes.call, [])
    await repository.load("regression")
    await lanes.stop(5)
    support = SupportSet(np.zeros((2, 1), np.float32), np.zeros((2, 1), np.float32), 0)
    task = AdaptTask(repository.get("regression").served, support, (), 1)
    made, computed = [], []
    for most in (None, None, 1):
        store, scheduler = SqliteStore(tmp_path / "store"), Scripted(0.0)
        keeper = Keeper(store, 1000, metrics, KeptParts(state_bytes=0), owner_most=most)
        await keeper.open()
        serving = LocalServing(repository, scheduler, keeper, metrics, RateLimits(OwnerLimits()))
        for _ in range(2):
            result = await serving.adapt(ME, task, KeepOptions(60.0, "mine"), Deadline())
            made.append(result.adaptation.id)
        computed.append(len(scheduler.jobs))
        await store.close()
    assert len(set(made)) == 1
    assert computed == [1, 2, 0], "found in memory, by keeping what was computed, and by looking first"


async def test_an_unload_whose_caller_leaves_still_drops_the_models_adaptations(tmp_path, metrics):
    thread = Lanes(1)
    repository = ModelRepository(
        write_models(tmp_path), TorchEngine(TorchSettings("cpu")), thread.call, [SlowListener()]
    )
    await repository.load("prototypes")
    await thread.stop(5)
    keeper = Keeper(MemoryStore(), 1000, metrics)
    kept = await keep(keeper, repository.get("prototypes"))
    unload = asyncio.create_task(
        LocalServing(repository, None, keeper, metrics, RateLimits(OwnerLimits())).unload("prototypes")
    )
    await asyncio.sleep(0)
    assert not repository.entries()
    unload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await unload
    with pytest.raises(AdaptationEvictedError):
        await keeper.look("me", kept.record.id)


@pytest.mark.parametrize("keeps", [True, False])
async def test_many_queries_are_answered_in_parts_as_they_would_be_at_once(tmp_path, metrics, value, keeps):
    lanes, engine = Lanes(1), TorchEngine(TorchSettings("cpu", lanes=1))
    repository = ModelRepository(write_models(tmp_path), engine, lanes.call, [])
    await repository.load("prototypes")
    model, keeper = repository.get("prototypes"), Keeper(MemoryStore(), 10**6, metrics)
    weights = dict.fromkeys(Operation, 1.0)
    limits = BatchLimits(8, 10**8), QueueLimits(100, 10**8, seconds=60.0)
    scheduler = Scheduler(lanes, 1, *limits, weights, metrics)
    serving = LocalServing(repository, scheduler, keeper, metrics, RateLimits(OwnerLimits()))
    random = np.random.default_rng(0)
    support = SupportSet(random.integers(0, 256, (5, *IMAGE), np.uint8), np.arange(5), 5)
    query = random.integers(0, 256, (5000, *IMAGE), np.uint8)
    task = AdaptTask(model.served, support, tuple("abcde"), 0)
    keep = KeepOptions(60.0) if keeps else None
    answered = (await serving.adapt_predict(ME, task, query, keep, Deadline())).answers
    (state,) = model.adapt([support], 0, 5)
    (wanted,) = model.predict([state.state], [query])
    np.testing.assert_allclose(answered.probabilities, wanted.probabilities, rtol=1e-4, atol=1e-5)
    parts = value("innerloop_batch_size_count", operation="predict", model="prototypes")
    assert parts >= 3
    if keeps:
        (kept,) = await keeper.list("me", "", None, 10)
        again = await serving.predict(ME, PredictTask(model.served, kept.record.id, query), Deadline())
        np.testing.assert_allclose(again.answers.logits, wanted.logits, rtol=1e-4, atol=1e-4)
    scheduler.stop()
    assert await lanes.stop(5)

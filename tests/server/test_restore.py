"""Adaptations whose states have left the memory: brought back once for all who wait, by state or by recipe."""

import asyncio

import numpy as np
import pytest
from fakes import FakeState, RecordingModel, describe

from innerloop_server.adaptations.keeper import Keeper
from innerloop_server.adaptations.parts import KeptParts
from innerloop_server.adaptations.stores.sqlite import SqliteStore
from innerloop_server.domain.adaptations import KeepOptions
from innerloop_server.domain.callers import Caller, OwnerLimits
from innerloop_server.domain.deadline import Deadline
from innerloop_server.domain.errors import (
    AdaptationDamagedError,
    DeadlinePassedError,
    ModelRetiredError,
    OverloadedError,
)
from innerloop_server.domain.tasks import AdaptTask, PredictTask, SupportSet
from innerloop_server.domain.timings import Operation
from innerloop_server.engine.interface import MemoryFullError, StateMismatchError
from innerloop_server.scheduling.admission import QueueLimits
from innerloop_server.scheduling.lanes import Lanes
from innerloop_server.scheduling.policy import BatchLimits
from innerloop_server.scheduling.scheduler import Scheduler
from innerloop_server.serving.local import LocalServing
from innerloop_server.serving.rate_limits import RateLimits

ME = Caller("me")
X = np.zeros((2, 1), np.float32)


class OneModel:
    """A repository of one model, which can be replaced."""

    def __init__(self, model):
        self.model = model

    def get(self, reference, account):
        del reference, account
        return self.model

    def made_by(self, name, digest):
        if digest != self.model.description.digest:
            raise ModelRetiredError(name)
        return self.model

    def serves(self, model):
        return model is self.model

    def check_serves(self, model):
        assert self.serves(model)


@pytest.fixture
async def served(tmp_path, metrics):
    """Makes a serving over a fake model whose memory holds one state, and gives both."""
    lanes = Lanes(1)
    limits = BatchLimits(8, 10**8), QueueLimits(100, 10**8, seconds=60.0)
    scheduler = Scheduler(lanes, 1, *limits, dict.fromkeys(Operation, 1.0), metrics)
    keepers = []

    async def make(parts, migrate="on-use"):
        model = RecordingModel(describe())
        keeper = Keeper(SqliteStore(tmp_path / "store"), 150, metrics, parts)
        await keeper.open()
        keepers.append(keeper)
        limit = RateLimits(OwnerLimits())
        return LocalServing(OneModel(model), scheduler, keeper, metrics, limit, migrate), model, keeper

    yield make
    scheduler.stop()
    assert await lanes.stop(5)
    for keeper in keepers:
        await keeper.close()


async def adapt(serving, model, **options):
    task = AdaptTask(model.served, SupportSet(X, np.arange(2), 2), ("a", "b"), 1)
    return (await serving.adapt(ME, task, KeepOptions(60.0, **options), Deadline())).adaptation.id


async def adapt_and_miss(serving, model, **options):
    """An adaptation whose state has given way to another's."""
    missed = await adapt(serving, model, **options)
    await adapt(serving, model)
    model.batches.clear()
    return missed


async def predict(serving, model, adaptation_id, seconds=None):
    return await serving.predict(ME, PredictTask(model.served, adaptation_id, X), Deadline(seconds))


def operations(model):
    return [operation for operation, _ in model.batches]


async def test_a_kept_state_is_read_and_nothing_is_computed_again(served, value):
    serving, model, _ = await served(KeptParts())
    missed = await adapt_and_miss(serving, model)
    assert (await predict(serving, model, missed)).classes == ("a", "b")
    await predict(serving, model, missed)
    assert operations(model) == ["predict", "predict"]
    found = [value("innerloop_adaptations_found_total", model="fake", tier=tier) for tier in ("store", "memory")]
    assert found == [1, 1]


async def test_callers_who_miss_an_adaptation_together_have_it_computed_again_once(served, value):
    serving, model, _ = await served(KeptParts(state_bytes=50))
    missed = await adapt_and_miss(serving, model)
    await asyncio.gather(*(predict(serving, model, missed) for _ in range(8)))
    assert operations(model).count("adapt") == 1
    (_, (support,)) = model.batches[0]
    np.testing.assert_array_equal(support.x, X)
    assert value("innerloop_adaptations_found_total", model="fake", tier="recipe") == 1


async def test_one_that_leaves_does_not_take_the_state_from_the_others(served):
    serving, model, _ = await served(KeptParts(state_bytes=50))
    missed = await adapt_and_miss(serving, model)
    first, second = (asyncio.create_task(predict(serving, model, missed)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).classes == ("a", "b")
    assert first.cancelled()


@pytest.mark.parametrize(
    ("error", "outcome"), [(StateMismatchError, None), (MemoryFullError, OverloadedError)], ids=lambda kind: str(kind)
)
async def test_a_state_that_can_not_be_used_is_computed_again_or_waited_for(served, monkeypatch, error, outcome):
    def refuse(content):
        del content
        raise error

    serving, model, _ = await served(KeptParts())
    missed = await adapt_and_miss(serving, model)
    monkeypatch.setattr(model, "import_state", refuse)
    if outcome is None:
        assert (await predict(serving, model, missed)).classes == ("a", "b")
        assert operations(model) == ["adapt", "predict"]
    else:
        with pytest.raises(outcome):
            await predict(serving, model, missed)


async def test_a_damaged_state_without_a_recipe_is_said_to_be_damaged(served, value):
    serving, model, keeper = await served(KeptParts())
    missed = await adapt_and_miss(serving, model, forget_examples=True)
    damage = "UPDATE parts SET state = substr(state, 2)"
    await keeper._store._write(lambda transaction: transaction.connection.execute(damage))
    with pytest.raises(AdaptationDamagedError):
        await predict(serving, model, missed)
    assert value("innerloop_adaptations_damaged_total") == 1


async def test_a_state_is_not_computed_again_for_callers_whose_time_is_over(served):
    serving, model, _ = await served(KeptParts(state_bytes=50))
    missed = await adapt_and_miss(serving, model)
    with pytest.raises(DeadlinePassedError):
        await predict(serving, model, missed, seconds=-1)
    assert operations(model) == []


async def test_an_adaptation_of_another_version_of_the_model_waits_for_it_where_none_may_move(served):
    serving, model, _ = await served(KeptParts(), migrate="never")
    kept = await adapt(serving, model)
    newer = RecordingModel(describe(version="2", digest="2"))
    serving._repository.model = newer
    for call in (serving.model_of(ME, kept), predict(serving, newer, kept)):
        with pytest.raises(ModelRetiredError):
            await call
    assert (await serving.look(ME, kept)).model_version == "1"
    serving._repository.model = again = RecordingModel(describe())
    assert (await predict(serving, again, kept)).classes == ("a", "b")
    assert operations(again) == ["predict"], "with the state that was kept, since the old one was another object's"
    assert isinstance((await serving._keeper.use("me", kept)).state, FakeState)

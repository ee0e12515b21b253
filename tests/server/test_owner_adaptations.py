"""How many adaptations an owner may have: counted over what is kept, in memory or not, by all servers of a store."""

import asyncio
from collections import Counter

import numpy as np
import pytest
from fakes import keep

from innerloop_server.adaptations.keeper import Keeper
from innerloop_server.adaptations.stores.fallback import FallbackStore
from innerloop_server.adaptations.stores.memory import MemoryStore
from innerloop_server.adaptations.stores.redis import RedisStore
from innerloop_server.adaptations.stores.sqlite import SqliteStore
from innerloop_server.adaptations.stores.write_behind import WriteBehindStore
from innerloop_server.domain.adaptations import KeepOptions, RequestKey
from innerloop_server.domain.callers import Caller, OwnerLimits
from innerloop_server.domain.deadline import Deadline
from innerloop_server.domain.errors import StoreUnavailableError, TooManyAdaptationsError
from innerloop_server.domain.tasks import AdaptTask, SupportSet
from innerloop_server.serving.local import LocalServing
from innerloop_server.serving.rate_limits import RateLimits

MOST = 5


class Clock:
    """Nanoseconds, told in seconds."""

    now = 0.0

    def __call__(self):
        return int(self.now * 1e9)


class ComputedError(Exception):
    """Something was computed."""


class Away(MemoryStore):
    """A store that nobody reaches."""

    def admit(self):
        raise StoreUnavailableError

    async def count(self, owner):  # noqa: ARG002
        raise StoreUnavailableError


STORES = {
    "memory": lambda _: MemoryStore(),
    "sqlite": lambda folder: SqliteStore(folder / "store"),
    "behind": lambda folder: WriteBehindStore(SqliteStore(folder / "store")),
    "fallback": lambda folder: FallbackStore(SqliteStore(folder / "store")),
    "away": lambda _: FallbackStore(Away()),
}


@pytest.fixture(params=STORES)
async def store(request, tmp_path):
    return STORES[request.param](tmp_path)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def keeper(store, metrics, clock):
    keeper = Keeper(store, 10**6, metrics, now=clock, owner_most=MOST)
    await keeper.open()
    yield keeper
    await keeper.close()


async def outcomes(*keeping):
    """How many were kept, and how many refused."""
    results = await asyncio.gather(*keeping, return_exceptions=True)
    return Counter("kept" if not isinstance(each, Exception) else type(each) for each in results)


async def test_of_many_at_once_no_more_are_kept_than_an_owner_may_have(keeper, fake_model):
    model = fake_model()
    made = await outcomes(*(keep(keeper, model, owner) for _ in range(3 * MOST) for owner in ("me", "you")))
    assert made == {"kept": 2 * MOST, TooManyAdaptationsError: 4 * MOST}
    for owner in ("me", "you"):
        assert len(await keeper.list(owner, "", None, 100)) == MOST


async def test_deleted_and_expired_ones_free_their_places(keeper, fake_model, clock):
    model = fake_model()
    kept = [await keep(keeper, model, life=10.0 if number else 100.0) for number in range(MOST)]
    with pytest.raises(TooManyAdaptationsError, match=r"as many .*\(5\); delete some"):
        await keep(keeper, model)
    await keeper.delete("me", kept[0].record.id)
    kept[0] = await keep(keeper, model, life=100.0)
    with pytest.raises(TooManyAdaptationsError):
        await keeper.admit_one_more("me", "fake")
    clock.now = 11
    await keeper.sweep()
    assert await outcomes(*(keep(keeper, model) for _ in range(MOST))) == {
        "kept": MOST - 1,
        TooManyAdaptationsError: 1,
    }


async def test_a_request_that_is_repeated_does_not_count_twice(keeper, fake_model):
    model = fake_model()
    kept = [await keep(keeper, model, request_id=str(number)) for number in range(MOST)]
    for number, each in enumerate(kept):
        assert (await keep(keeper, model, request_id=str(number))).record.id == each.record.id
        assert (await keeper.made_by(RequestKey("me", str(number)))).record.id == each.record.id
    with pytest.raises(TooManyAdaptationsError):
        await keep(keeper, model, request_id="another")


@pytest.mark.parametrize("store", ["memory"])
async def test_one_too_many_is_refused_before_it_is_computed(store, metrics, value, fake_model):
    model = fake_model()

    class Repository:
        def made_by(self, *_):
            return model

        def serves(self, _):
            return True

        def check_serves(self, _):
            pass

    class Scheduler:
        async def run(self, _):
            raise ComputedError

    keeper = Keeper(STORES[store](None), 10**6, metrics, owner_most=1)
    serving = LocalServing(Repository(), Scheduler(), keeper, metrics, RateLimits(OwnerLimits()))
    await keep(keeper, model)
    support = SupportSet(np.zeros((2, 1), np.float32), np.zeros(2, np.int64), 2)
    task = AdaptTask(model.served, support, ("a", "b"), 1)
    with pytest.raises(TooManyAdaptationsError):
        await serving.adapt(Caller("me"), task, KeepOptions(60.0), Deadline())
    with pytest.raises(ComputedError):  # let in by a limit of its own
        await serving.adapt(Caller("me", limits=OwnerLimits(adaptations=2)), task, KeepOptions(60.0), Deadline())
    assert value("innerloop_requests_refused_total", model="fake", reason="owner") == 1


async def test_servers_of_one_store_count_together(redis, metrics, fake_model):
    model = fake_model()
    keepers = [Keeper(RedisStore(redis.url), 10**6, metrics, owner_most=MOST) for _ in range(2)]
    for keeper in keepers:
        await keeper.open()
    made = await outcomes(*(keep(keeper, model, "together") for _ in range(MOST) for keeper in keepers))
    assert made == {"kept": MOST, TooManyAdaptationsError: MOST}
    with pytest.raises(TooManyAdaptationsError):
        await keepers[1].admit_one_more("together", "fake")
    (newest, *_) = await keepers[0].list("together", "", None, 1)
    await keepers[0].delete("together", newest.record.id)
    await keepers[1].admit_one_more("together", "fake")
    await keep(keepers[1], model, "together")
    for keeper in keepers:
        await keeper.close()


async def test_what_waits_to_be_written_and_what_was_written_count_once(tmp_path, metrics, fake_model):
    model, store = fake_model(), WriteBehindStore(SqliteStore(tmp_path / "store"))
    keeper = Keeper(store, 10**6, metrics, owner_most=MOST)
    await keeper.open()
    kept, writing = [], []
    for _ in range(20):
        while len(kept) < MOST:
            writing.append(asyncio.create_task(store._flush()))
            kept.append(await keep(keeper, model))
        with pytest.raises(TooManyAdaptationsError):
            await keep(keeper, model)
        await asyncio.gather(*(keeper.delete("me", kept.pop().record.id) for _ in range(2)))
    await asyncio.gather(*writing)
    await store._flush()
    assert not store._added
    assert not store._deleted
    assert await store.count("me") == len(kept)
    await keeper.close()


async def test_nobody_is_refused_for_what_is_being_written(tmp_path, metrics, fake_model):
    model, store = fake_model(), WriteBehindStore(SqliteStore(tmp_path / "store"))
    keeper = Keeper(store, 10**6, metrics, owner_most=2 * MOST)
    await keeper.open()
    for _ in range(2 * MOST - 1):
        await keep(keeper, model)
    writing = asyncio.create_task(store._flush())
    while not writing.done():
        await keeper.admit_one_more("me", "fake")
    await keeper.close()


async def test_a_limit_of_an_owners_own_stands_in_place_of_that_of_all(keeper, fake_model):
    model = fake_model()
    adaptations = [keep(keeper, model, "large", own_most=MOST + 2) for _ in range(2 * MOST)]
    assert (await outcomes(*adaptations))["kept"] == MOST + 2
    assert (await outcomes(*(keep(keeper, model, "small", own_most=1) for _ in range(MOST))))["kept"] == 1

"""The keeper: budget, expiry, owners, pages; what gives way in memory comes back from a store, or is gone."""

import random
from functools import partial

import pytest
from fakes import FakeState, RecordingModel, describe, keep
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop_server.adaptations import departed
from innerloop_server.adaptations.keeper import Keeper
from innerloop_server.adaptations.parts import KeptParts
from innerloop_server.adaptations.stores import memory as memory_store
from innerloop_server.adaptations.stores.fallback import FallbackStore
from innerloop_server.adaptations.stores.interface import Part, StoreUnusableError
from innerloop_server.adaptations.stores.memory import MemoryStore
from innerloop_server.adaptations.stores.sqlite import SqliteStore
from innerloop_server.adaptations.stores.watched import WatchedStore
from innerloop_server.domain.adaptations import RequestKey
from innerloop_server.domain.errors import (
    AdaptationDamagedError,
    AdaptationEvictedError,
    AdaptationNotFoundError,
    AdaptationTooLargeError,
    StoreUnavailableError,
)
from innerloop_server.observability.metrics import Metrics

BUDGET = 1000


class Clock:
    """Nanoseconds, told in seconds."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return int(self.now * 1e9)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def keeper(metrics, clock):
    """One without a durable store."""
    return Keeper(MemoryStore(), BUDGET, metrics, now=clock)


@pytest.fixture
def kept_of(keeper, fake_model):
    """Has the keeper keep a state, of one model unless another is given."""
    return partial(keep, keeper, fake_model())


async def used(keeper, kept, owner="me"):
    """The record that is used, if it is in memory."""
    live = await keeper.use(owner, kept.record.id)
    return live and live.record


async def gone(keeper, kept, owner="me"):
    """How the owner of an adaptation is told that it is gone."""
    try:
        if await keeper.use(owner, kept.record.id) is None:
            await keeper.fetch(owner, kept.record.id)
    except (AdaptationEvictedError, AdaptationNotFoundError) as told:
        return type(told)
    return None


async def test_no_command_line_takes_an_id_for_an_option(kept_of):
    ids = [(await kept_of(size=1)).record.id for _ in range(20)]
    assert "".join(ids).isalnum()


async def test_the_least_recently_used_adaptation_gives_way(keeper, kept_of, value):
    first, second = [await kept_of(size=400) for _ in range(2)]
    await used(keeper, first)
    await kept_of(size=400)
    assert await used(keeper, first) is first.record
    assert await gone(keeper, second) is AdaptationEvictedError
    assert value("innerloop_adaptations_evicted_total", model="fake") == 1
    assert value("innerloop_adaptations_bytes", model="fake") == 800


async def test_looking_at_an_adaptation_does_not_count_as_use(keeper, kept_of, clock):
    first = await kept_of()
    clock.now = 50
    await keeper.look("me", first.record.id)
    clock.now = 61
    with pytest.raises(AdaptationEvictedError):
        await keeper.look("me", first.record.id)


async def test_use_postpones_expiry(keeper, kept_of, clock):
    kept = await kept_of()
    for clock.now in (50, 100, 159):
        await keeper.sweep()
        assert await used(keeper, kept) is kept.record


async def test_unused_adaptations_expire_and_free_their_memory(keeper, kept_of, clock, value):
    short, long = await kept_of(life=10), await kept_of(life=100)
    clock.now = 11
    await keeper.sweep()
    assert [each.record for each in await keeper.list("me", "", None, 10)] == [long.record]
    assert await gone(keeper, short) is AdaptationEvictedError
    assert value("innerloop_adaptations_expired_total", model="fake") == 1
    assert value("innerloop_adaptations_held", model="fake") == 1


async def test_an_adaptation_of_no_time_to_live_never_expires(keeper, kept_of, clock):
    kept = await kept_of(life=0)
    clock.now = 50 * 365 * 86400
    await keeper.sweep()
    assert await used(keeper, kept) is kept.record
    assert kept.describe().expires_ns is None


async def test_another_owner_learns_nothing_of_an_adaptation_dropped_or_not(keeper, kept_of):
    kept = await kept_of(size=600)
    for act in (keeper.use, keeper.look, keeper.fetch, keeper.known, keeper.delete):
        with pytest.raises(AdaptationNotFoundError):
            await act("you", kept.record.id)
    assert not await keeper.list("you", "", None, 10)
    await kept_of(size=600)
    assert await gone(keeper, kept, "you") is AdaptationNotFoundError
    assert await gone(keeper, kept, "me") is AdaptationEvictedError


async def test_a_deleted_adaptation_was_never_there(keeper, kept_of):
    kept = await kept_of()
    await keeper.delete("me", kept.record.id)
    assert await gone(keeper, kept) is AdaptationNotFoundError


async def test_a_state_larger_than_the_budget_is_refused_and_evicts_nothing(keeper, kept_of):
    kept = await kept_of()
    with pytest.raises(AdaptationTooLargeError, match="1001 bytes"):
        await kept_of(size=1001)
    assert await used(keeper, kept) is kept.record


async def test_pages_stay_right_when_adaptations_come_and_go(keeper, kept_of):
    kept = [(await kept_of(size=10)).record for _ in range(5)]
    first_page = [each.record for each in await keeper.list("me", "", None, 2)]
    await kept_of(size=10)
    await keeper.delete("me", first_page[-1].id)
    second_page = [each.record for each in await keeper.list("me", "", first_page[-1].created_ns, 2)]
    assert first_page == [kept[4], kept[3]]
    assert second_page == [kept[2], kept[1]]


async def test_lists_only_the_model_asked_for(keeper, kept_of, fake_model):
    await kept_of()
    other = await keep(keeper, fake_model("other"))
    assert [each.record for each in await keeper.list("me", "other", None, 10)] == [other.record]


async def test_dropping_a_model_evicts_its_adaptations_only(keeper, kept_of, fake_model):
    model = fake_model("other")
    dropped, stays = await keep(keeper, model), await kept_of()
    await keeper.drop_model(model)
    assert await gone(keeper, dropped) is AdaptationEvictedError
    assert await used(keeper, stays) is stays.record


async def test_a_request_id_finds_its_adaptation_until_that_is_dropped(keeper, kept_of, clock):
    key = RequestKey("me", "request")
    kept = await kept_of(request_id=key.request_id, fingerprint=b"content")
    assert (await keeper.made_by(key)).record == kept.record
    assert await keeper.made_by(RequestKey("you", "request")) is None
    clock.now = 61
    assert await keeper.made_by(key) is None
    again = await kept_of(request_id=key.request_id, fingerprint=b"content")
    assert (await keeper.made_by(key)).record == again.record


async def test_remembers_only_so_many_dropped_adaptations(keeper, kept_of, monkeypatch):
    monkeypatch.setattr(departed, "MOST", 2)
    dropped = [await kept_of(size=1000) for _ in range(4)]
    assert await gone(keeper, dropped[0]) is AdaptationNotFoundError
    assert await gone(keeper, dropped[2]) is AdaptationEvictedError


async def test_churn_does_not_grow_the_expiry_heap(keeper, kept_of):
    for _ in range(3000):
        await keeper.delete("me", (await kept_of(life=1e6)).record.id)
    assert len(keeper._store._expiries) <= memory_store.SLACK + 1


steps = st.lists(
    st.one_of(
        st.tuples(st.just("keep"), st.integers(1, 600), st.sampled_from([5.0, 50.0])),
        st.tuples(st.just("use"), st.integers(0, 30), st.none()),
        st.tuples(st.just("delete"), st.integers(0, 30), st.none()),
        st.tuples(st.just("wait"), st.integers(1, 20), st.none()),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(steps)
async def test_whatever_happens_the_budget_holds_and_the_books_balance(steps):
    model, metrics, clock = RecordingModel(describe()), Metrics("test", BUDGET), Clock()
    keeper, made = Keeper(MemoryStore(), BUDGET, metrics, now=clock), []
    for action, number, life in steps:
        if action == "keep":
            key = RequestKey("me", str(number))
            if await keeper.made_by(key) is None:
                made.append(await keep(keeper, model, size=number, life=life, request_id=key.request_id))
        elif action == "wait":
            clock.now += number
        elif number < len(made):
            try:
                await getattr(keeper, action)("me", made[number].record.id)
            except (AdaptationEvictedError, AdaptationNotFoundError):
                continue
        await keeper.sweep()
        kept = await keeper.list("me", "", None, 1000)
        read = metrics.registry.get_sample_value
        assert sum(each.record.size_bytes for each in kept) <= BUDGET
        held = keeper._live._by_id
        assert read("innerloop_adaptations_held", {"model": "fake"}) in (len(held), None)
        assert {each.record.id for each in kept} == {each for each in held if held[each].expires_ns > clock()}
        assert all(live.stored_expiry_ns > clock() for live in held.values()), "others were dropped"
        assert kept == sorted(kept, key=lambda each: -each.record.created_ns)


@pytest.fixture
async def durable(tmp_path, metrics, clock):
    """Opens keepers one after another on the same file, as after restarts."""
    opened = []

    async def open_keeper(parts=KeptParts(), budget=BUDGET):
        while opened:
            await opened.pop().close()
        opened.append(Keeper(SqliteStore(tmp_path / "store.sqlite"), budget, metrics, parts, clock))
        await opened[-1].open()
        return opened[-1]

    yield open_keeper
    while opened:
        await opened.pop().close()


async def test_what_gives_way_in_memory_comes_back_from_the_store(durable, fake_model, value):
    keeper, model = await durable(), fake_model()
    first = await keep(keeper, model, size=600)
    await keep(keeper, model, size=600)
    assert await keeper.use("me", first.record.id) is None
    fetched = await keeper.fetch("me", first.record.id)
    assert (fetched.kept.record, fetched.state, fetched.recipe.steps) == (first.record, bytes(600), 1)
    live = await keeper.revive(fetched, model, FakeState(600))
    assert await keeper.use("me", first.record.id) is live
    assert value("innerloop_adaptations_evicted_total", model="fake") is None
    assert value("innerloop_adaptations_bytes", model="fake") == 600


async def test_adaptations_outlive_restarts_with_their_owners_requests_and_lives(durable, fake_model, clock):
    keeper = await durable()
    kept = await keep(keeper, fake_model(), request_id="request", life=100)
    clock.now = 90
    await keeper.use("me", kept.record.id)
    keeper = await durable()
    clock.now = 180
    assert (await keeper.look("me", kept.record.id)).record == kept.record
    assert (await keeper.made_by(RequestKey("me", "request"))).record == kept.record
    with pytest.raises(AdaptationNotFoundError):
        await keeper.look("you", kept.record.id)
    await keeper.delete("me", kept.record.id)
    keeper = await durable()
    assert await gone(keeper, kept) is AdaptationNotFoundError


async def test_expiry_goes_on_while_the_server_is_down(durable, fake_model, clock):
    kept = await keep(await durable(), fake_model(), life=100)
    clock.now = 103
    keeper = await durable()
    with pytest.raises(AdaptationEvictedError):
        await keeper.look("me", kept.record.id)


async def test_a_use_is_written_only_once_in_a_fiftieth_of_a_life(durable, fake_model, clock, monkeypatch):
    keeper, touched = await durable(), []
    kept = await keep(keeper, fake_model(), life=100)
    monkeypatch.setattr(keeper._store, "touch", partial(_noting, keeper._store.touch, touched))
    for _ in range(100):
        clock.now += 0.1
        await keeper.use("me", kept.record.id)
        await keeper.sweep()
    assert len(touched) == 4


async def _noting(touch, touched, expiries):
    touched.append(expiries)
    await touch(expiries)


@pytest.mark.parametrize(
    ("size", "options", "parts", "state", "recipe"),
    [
        (100, {}, KeptParts(), True, True),
        (100, {"forget_examples": True}, KeptParts(), True, False),
        (100, {}, KeptParts(state_bytes=50), False, True),  # 24 bytes of examples make it again
        (20, {}, KeptParts(state_bytes=0), True, True),
        (100, {"forget_examples": True}, KeptParts(state_bytes=50), True, False),
        (100, {}, KeptParts(recipe_bytes=0, state_bytes=50), True, False),
    ],
)
async def test_what_the_store_is_given_follows_the_owners_wish_and_the_operators_limits(
    durable, fake_model, size, options, parts, state, recipe
):
    keeper = await durable(parts)
    kept = await keep(keeper, fake_model(), size=size, **options)
    fetched = await keeper.fetch("me", kept.record.id)
    assert (fetched.state is not None, fetched.recipe is not None) == (state, recipe)


async def test_damage_costs_one_adaptation_alone_and_is_said(durable, fake_model, value):
    keeper, model = await durable(), fake_model()
    record, state, whole = [await keep(keeper, model, request_id=str(each)) for each in range(3)]

    def damage(transaction):
        connection = transaction.connection
        connection.execute("UPDATE adaptations SET record = substr(record, 2) WHERE id = ?", (record.record.id,))
        cut = "UPDATE parts SET state = substr(state, 2) WHERE number = (SELECT parts FROM adaptations WHERE id = ?)"
        connection.execute(cut, (state.record.id,))

    await keeper._store._write(damage)
    keeper = await durable()
    for act in (keeper.fetch, keeper.look, keeper.known):
        with pytest.raises(AdaptationDamagedError):
            await act("me", record.record.id)
    assert value("innerloop_adaptations_damaged_total") == 3
    fetched = await keeper.fetch("me", state.record.id)
    assert (fetched.state, fetched.damaged) == (None, [Part.STATE])
    assert fetched.recipe is not None, "which makes the state again"
    assert (await keeper.fetch("me", whole.record.id)).state == bytes(100)
    assert [each.record for each in await keeper.list("me", "", None, 10)] == [whole.record, state.record]
    assert await keeper.made_by(RequestKey("me", "0")) is None
    again = await keep(keeper, model, request_id="0")
    assert (await keeper.made_by(RequestKey("me", "0"))).record == again.record


async def test_what_is_damaged_can_be_deleted_by_its_owner(durable, fake_model):
    keeper = await durable()
    kept = await keep(keeper, fake_model())
    await keeper._store._write(
        lambda transaction: transaction.connection.execute("UPDATE adaptations SET record = substr(record, 2)")
    )
    keeper = await durable()
    for owner, told, records in (("you", AdaptationNotFoundError, 1), ("me", AdaptationDamagedError, 0)):
        with pytest.raises(told):
            await keeper.delete(owner, kept.record.id)
        assert (await keeper._store.totals()).records == records


async def test_what_is_deleted_while_it_is_brought_back_stays_away(durable, fake_model):
    keeper, model = await durable(), fake_model()
    kept = await keep(keeper, model)
    keeper = await durable()
    fetched = await keeper.fetch("me", kept.record.id)
    await keeper.delete("me", kept.record.id)
    with pytest.raises(AdaptationNotFoundError):
        await keeper.revive(fetched, model, FakeState())
    assert await gone(keeper, kept) is AdaptationNotFoundError


class Failing(SqliteStore):
    """A file whose disk is full as long as `full` says so."""

    full = False

    def _commit(self, batch):
        if self.full:
            import sqlite3

            raise sqlite3.OperationalError("database or disk is full")
        return super()._commit(batch)


@pytest.fixture
async def failing(tmp_path, metrics):
    """Opens a keeper on a disk that can be full, and gives the store and the changes that are told."""
    opened = []

    async def open_keeper(wrap=lambda store: store):
        changes = []
        store = Failing(tmp_path / "store.sqlite")
        keeper = Keeper(wrap(WatchedStore(store, metrics, changes.append)), BUDGET, metrics)
        await keeper.open()
        opened.append(keeper)
        return keeper, store, changes

    yield open_keeper
    for keeper in opened:
        await keeper.close()


async def test_while_the_store_is_away_new_ones_are_refused_and_those_in_memory_go_on(
    failing, fake_model, value, monkeypatch
):
    keeper, store, changes = await failing()
    kept = await keep(keeper, fake_model())
    store.full = True
    with pytest.raises(StoreUnavailableError):
        await keep(keeper, fake_model())
    with pytest.raises(StoreUnavailableError):
        keeper.admit()  # before anything is computed
    with pytest.raises(StoreUnavailableError):
        await keeper.delete("me", kept.record.id)
    assert await used(keeper, kept) is kept.record
    await keeper.sweep()
    assert changes[0] is False
    store.full = False
    monkeypatch.setattr("innerloop_server.adaptations.stores.watched.RETRY_SECONDS", 0)
    await keeper.sweep()
    await keep(keeper, fake_model())
    assert (value("innerloop_store_up"), changes[-1]) == (1, True)


async def test_an_operator_may_choose_to_go_on_in_memory(failing, fake_model):
    keeper, store, _ = await failing(FallbackStore)
    durable = await keep(keeper, fake_model(), size=400)
    store.full = True
    passing = await keep(keeper, fake_model(), size=400, request_id="request")
    assert await used(keeper, passing) is passing.record
    assert (await keeper.made_by(RequestKey("me", "request"))).record == passing.record
    store.full = False
    await keeper.sweep()
    await keep(keeper, fake_model(), size=800)
    assert await gone(keeper, passing) is AdaptationEvictedError
    assert (await keeper.fetch("me", durable.record.id)).state == bytes(400)


async def test_whatever_bytes_of_the_file_change_nothing_wrong_is_read(tmp_path, metrics, fake_model):
    path, model = tmp_path / "store.sqlite", fake_model()
    keeper = Keeper(SqliteStore(path), 10**6, metrics)
    await keeper.open()
    kept = [(await keep(keeper, model, size=200, life=0)).record for _ in range(30)]
    await keeper.close()
    content, chance, whole = path.read_bytes(), random.Random(0), 0
    for _ in range(40):
        altered = bytearray(content)
        for _ in range(chance.choice([1, 1, 8])):
            altered[chance.randrange(100, len(altered))] ^= chance.randrange(1, 256)
        path.write_bytes(altered)
        keeper = Keeper(SqliteStore(path), 10**6, metrics)
        try:
            await keeper.open()
        except StoreUnusableError:
            continue
        for record in kept:
            try:
                fetched = await keeper.fetch("me", record.id)
            except (AdaptationDamagedError, AdaptationNotFoundError, AdaptationEvictedError, StoreUnavailableError):
                continue
            assert (fetched.kept.record, fetched.state) in [(record, bytes(200)), (record, None)]
            whole += fetched.state is not None
        await keeper.close()
    assert whole > 0.8 * 40 * len(kept), "most are still there each time"

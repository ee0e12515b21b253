"""The adaptation store: budget, expiry, owners, pages."""

from functools import partial

import pytest
from fakes import RecordingModel, describe, keep
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop_server.adaptations import store as store_module
from innerloop_server.adaptations.store import AdaptationStore
from innerloop_server.domain.adaptations import RequestKey
from innerloop_server.domain.errors import AdaptationEvictedError, AdaptationNotFoundError, AdaptationTooLargeError
from innerloop_server.observability.metrics import Metrics

BUDGET = 1000


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(metrics, clock):
    return AdaptationStore(BUDGET, metrics, clock)


@pytest.fixture
def kept_of(store, fake_model):
    """Has the store keep a state, of one model unless another is given."""
    return partial(keep, store, fake_model())


def test_the_least_recently_used_adaptation_gives_way(store, kept_of, value):
    first, second = (kept_of(size=400) for _ in range(2))
    store.use("me", first.id)
    kept_of(size=400)
    assert store.use("me", first.id) is first
    with pytest.raises(AdaptationEvictedError):
        store.use("me", second.id)
    assert value("innerloop_adaptations_evicted_total", model="fake") == 1
    assert value("innerloop_adaptations_bytes", model="fake") == 800


def test_looking_at_an_adaptation_does_not_count_as_use(store, kept_of, clock):
    first = kept_of()
    clock.now = 50
    store.look("me", first.id)
    clock.now = 61
    with pytest.raises(AdaptationEvictedError):
        store.look("me", first.id)


def test_use_postpones_expiry(store, kept_of, clock):
    kept = kept_of()
    clock.now = 50
    store.use("me", kept.id)
    clock.now = 100
    store.expire()
    assert store.use("me", kept.id) is kept


def test_unused_adaptations_expire_and_free_their_memory(store, kept_of, clock, value):
    short, long = kept_of(life=10), kept_of(life=100)
    clock.now = 10
    store.expire()
    assert store.list("me", "", None, 10) == [long]
    with pytest.raises(AdaptationEvictedError):
        store.use("me", short.id)
    assert value("innerloop_adaptations_expired_total", model="fake") == 1
    assert value("innerloop_adaptations_held", model="fake") == 1


def test_another_owner_learns_nothing_of_an_adaptation_dropped_or_not(store, kept_of):
    kept = kept_of(size=600)
    for act in (store.use, store.look, store.delete):
        with pytest.raises(AdaptationNotFoundError):
            act("you", kept.id)
    assert store.list("you", "", None, 10) == []
    kept_of(size=600)
    with pytest.raises(AdaptationNotFoundError):
        store.use("you", kept.id)
    with pytest.raises(AdaptationEvictedError):
        store.use("me", kept.id)


def test_a_deleted_adaptation_was_never_there(store, kept_of):
    kept = kept_of()
    store.delete("me", kept.id)
    with pytest.raises(AdaptationNotFoundError):
        store.use("me", kept.id)


def test_a_state_larger_than_the_budget_is_refused_and_evicts_nothing(store, kept_of):
    kept = kept_of()
    with pytest.raises(AdaptationTooLargeError, match="1001 bytes"):
        kept_of(size=1001)
    assert store.use("me", kept.id) is kept


def test_pages_stay_right_when_adaptations_come_and_go(store, kept_of):
    kept = [kept_of(size=10) for _ in range(5)]
    first_page = store.list("me", "", None, 2)
    kept_of(size=10)
    store.delete("me", first_page[-1].id)
    second_page = store.list("me", "", first_page[-1].created_ns, 2)
    assert first_page == [kept[4], kept[3]]
    assert second_page == [kept[2], kept[1]]


def test_lists_only_the_model_asked_for(store, kept_of, fake_model):
    kept_of()
    other = keep(store, fake_model("other"))
    assert store.list("me", "other", None, 10) == [other]


def test_dropping_a_model_evicts_its_adaptations_only(store, kept_of, fake_model):
    model = fake_model("other")
    gone, stays = keep(store, model), kept_of()
    store.drop_model(model)
    with pytest.raises(AdaptationEvictedError):
        store.use("me", gone.id)
    assert store.use("me", stays.id) is stays


def test_a_request_id_finds_its_adaptation_until_that_is_dropped(store, kept_of, clock):
    key = RequestKey("me", "request")
    kept = kept_of(request_id=key.request_id, fingerprint=b"content")
    assert store.made_by(key) is kept
    assert store.made_by(RequestKey("you", "request")) is None
    clock.now = 61
    assert store.made_by(key) is None
    again = kept_of(request_id=key.request_id, fingerprint=b"content")
    assert store.made_by(key) is again


def test_remembers_only_so_many_dropped_adaptations(store, kept_of, monkeypatch):
    monkeypatch.setattr(store_module, "TOMBSTONES", 2)
    dropped = [kept_of(size=1000) for _ in range(4)]
    store.drop_model(dropped[-1].model)
    with pytest.raises(AdaptationNotFoundError):
        store.use("me", dropped[0].id)
    with pytest.raises(AdaptationEvictedError):
        store.use("me", dropped[-1].id)


def test_churn_does_not_grow_the_expiry_heap(store, kept_of):
    for _ in range(5000):
        store.delete("me", kept_of(life=1e6).id)
    assert len(store._expiries) <= store_module.SLACK + 1


steps = st.lists(
    st.one_of(
        st.tuples(st.just("keep"), st.integers(1, 600), st.sampled_from([5.0, 50.0])),
        st.tuples(st.just("use"), st.integers(0, 30), st.none()),
        st.tuples(st.just("delete"), st.integers(0, 30), st.none()),
        st.tuples(st.just("wait"), st.integers(1, 20), st.none()),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_whatever_happens_the_budget_holds_and_the_books_balance(steps):
    model, metrics, clock = RecordingModel(describe()), Metrics("test", BUDGET), Clock()
    store, made = AdaptationStore(BUDGET, metrics, clock), []
    for action, number, life in steps:
        if action == "keep":
            key = RequestKey("me", str(number))
            if store.made_by(key) is None:
                made.append(keep(store, model, size=number, life=life, request_id=key.request_id))
        elif action == "wait":
            clock.now += number
        elif number < len(made):
            try:
                getattr(store, action)("me", made[number].id)
            except (AdaptationEvictedError, AdaptationNotFoundError):
                continue
        store.expire()
        kept = store.list("me", "", None, 1000)
        read = metrics.registry.get_sample_value
        assert sum(adaptation.size_bytes for adaptation in kept) <= BUDGET
        assert read("innerloop_adaptations_held", {"model": "fake"}) in (len(kept), None)
        assert read("innerloop_adaptations_bytes", {"model": "fake"}) in (sum(a.size_bytes for a in kept), None)
        assert all(adaptation.expires > clock.now for adaptation in kept)
        assert kept == sorted(kept, key=lambda adaptation: -adaptation.created_ns)

"""Task states in memory: which of them give way, to whom."""

import pytest
from fakes import FakeState, RecordingModel, describe
from hypothesis import given
from hypothesis import strategies as st

from innerloop_server.adaptations.live import SLACK, LiveAdaptation, LiveAdaptations
from innerloop_server.adaptations.record import AdaptationRecord
from innerloop_server.observability.metrics import Metrics

BUDGET = 100


def make(name, owner, size, model):
    record = AdaptationRecord(
        id=name,
        owner=owner,
        revision=1,
        model=model.name,
        model_digest="1",
        model_version="1",
        classes=(),
        support_size=1,
        steps=1,
        losses=(),
        size_bytes=size,
        created_ns=0,
        time_to_live=60.0,
        request_id="",
        fingerprint=b"",
    )
    return LiveAdaptation(record, model, FakeState(size), False, 0, 0)


@pytest.fixture
def model(fake_model):
    return fake_model()


@pytest.fixture
def add(model):
    """Adds an adaptation; returns the names of those that gave way."""

    def add(held, name, owner, size=10):
        dropped = held.make_room(owner, size)
        held.put(make(name, owner, size, model))
        return [live.record.id for live in dropped]

    return add


def test_one_that_keeps_adding_drives_out_nothing_of_one_that_has_less(metrics, add):
    held = LiveAdaptations(BUDGET, metrics)
    for number in range(3):
        assert add(held, f"quiet {number}", "quiet") == []
    gave_way = [name for number in range(100) for name in add(held, f"noisy {number}", "noisy")]
    assert gave_way == [f"noisy {number}" for number in range(93)]
    assert all(held.get(f"quiet {number}") for number in range(3))


def test_a_newcomer_gets_room_from_whoever_has_most_until_both_have_the_same(metrics, add):
    held = LiveAdaptations(BUDGET, metrics)
    for number in range(10):
        add(held, f"first {number}", "first")
    held.get("first 0")
    gave_way = [name for number in range(10) for name in add(held, f"second {number}", "second")]
    assert gave_way[:5] == [f"first {number}" for number in range(1, 6)], "first the least recently used"
    assert gave_way[5:] == [f"second {number}" for number in range(5)]


def test_an_owner_at_its_limit_drives_out_its_own_though_there_is_room(metrics, add):
    held = LiveAdaptations(BUDGET, metrics, owner_budget=20)
    assert [add(held, name, "me") for name in "abc"] == [[], [], ["a"]]
    assert add(held, "d", "another") == []


@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from("abcd"), st.integers(1, BUDGET)), max_size=60))
def test_the_budget_holds_and_nobody_loses_anything_to_one_who_has_more(actions):
    held, model = LiveAdaptations(BUDGET, Metrics("test", BUDGET)), RecordingModel(describe())
    for number, owner, size in actions:
        name = f"{owner} {number}"
        held.drop(name)
        before = held._bytes_of.copy()
        losers = {live.record.owner for live in held.make_room(owner, size)} - {owner}
        own = held._bytes_of[owner]
        assert all(before[loser] > before[owner] or not own for loser in losers), "its own gave way first"
        held.put(make(name, owner, size, model))
        assert held._bytes == sum(held._bytes_of.values()) <= BUDGET
        assert held._bytes == sum(live.state.size_bytes for live in held._by_id.values())
        assert len(held._most) <= 2 * len(held._bytes_of) + SLACK

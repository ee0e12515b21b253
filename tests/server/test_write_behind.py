"""A store that answers before it has written: what waits is seen, written soon, and not lost to failures that pass."""

import asyncio
import time

import pytest
from power_log_writer import adaptation

from innerloop_server.adaptations.stores import write_behind
from innerloop_server.adaptations.stores.memory import MemoryStore
from innerloop_server.adaptations.stores.sqlite import SqliteStore
from innerloop_server.adaptations.stores.write_behind import BEHIND_SECONDS, WriteBehindStore
from innerloop_server.domain.errors import StoreUnavailableError


@pytest.fixture
async def file(tmp_path):
    return SqliteStore(tmp_path / "store")


@pytest.fixture
async def store(file):
    store = WriteBehindStore(file)
    await store.open()
    yield store
    await store.close()


def of_request(name, request_id):
    made = adaptation(name)
    return made._replace(summary=made.summary._replace(request_id=request_id))


async def test_what_was_answered_is_written_within_the_window(store, file):
    await store.add(adaptation("a"))
    answered = time.monotonic()
    assert await file.get("a") is None
    assert await store.get("a") == adaptation("a")
    while await file.get("a") is None:
        await asyncio.sleep(0.01)
    assert time.monotonic() - answered < BEHIND_SECONDS + 0.4
    await store.delete("a")
    assert await store.get("a") is None
    while await file.get("a") is not None:
        await asyncio.sleep(0.01)


async def test_what_can_not_be_written_now_is_written_later(store, file, monkeypatch):
    commit, full = file._commit, [True]

    def failing(batch):
        if full:
            import sqlite3

            raise sqlite3.OperationalError("database or disk is full")
        return commit(batch)

    monkeypatch.setattr(file, "_commit", failing)
    for name in "abc":
        await store.add(adaptation(name))
    await store.delete("b")
    with pytest.raises(StoreUnavailableError):
        await store.list("me", "", None, 0, 10)
    assert await store.get("a") == adaptation("a")
    assert await store.get("b") is None
    full.clear()
    assert {summary.id for summary in await store.list("me", "", None, 0, 10)} == {"a", "c"}
    assert (await file.totals()).records == 2


async def test_a_caller_that_leaves_in_mid_write_leaves_no_trace(store, file, monkeypatch):
    commit = file._commit

    def slow(batch):
        time.sleep(0.02)
        return commit(batch)

    monkeypatch.setattr(file, "_commit", slow)
    await store.add(adaptation("a"))
    listing = asyncio.create_task(store.list("me", "", None, 0, 10))
    await asyncio.sleep(0.01)
    listing.cancel()
    assert [summary.id for summary in await store.list("me", "", None, 0, 10)] == ["a"]


async def test_whoever_adds_more_than_may_wait_waits_for_the_write(store, file, monkeypatch):
    monkeypatch.setattr(write_behind, "MOST_BYTES", 1000)
    await store.add(adaptation("a"))
    assert await file.get("a") is not None


async def test_of_one_request_that_two_servers_have_answered_both_adaptations_are_kept():
    shared = MemoryStore()
    stores = [WriteBehindStore(shared) for _ in range(2)]
    for number, store in enumerate(stores):
        await store.open()
        assert await store.add(of_request(f"{number}", "request")) is None
    for store in stores:
        await store.close()
    assert (await shared.totals()).records == 2
    assert (await shared.made_by("me", "request")).id == "0"

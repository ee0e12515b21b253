"""What is particular to the SQLite store: one server a file, one fsync for many, and what a power loss leaves."""

import asyncio
import stat

import pytest

from innerloop_server.adaptations.stores.interface import StoredAdaptation, StoreUnusableError, Summary
from innerloop_server.adaptations.stores.sqlite import SqliteStore


def adaptation(number, owner="me"):
    summary = Summary(f"id{number}", owner, "model", 1, number, 2**62, "", b"record")
    return StoredAdaptation(summary, b"state", b"recipe")


@pytest.fixture
async def store(tmp_path):
    store = SqliteStore(tmp_path / "folder" / "store.sqlite")
    await store.open()
    yield store
    await store.close()


async def test_two_servers_do_not_use_one_file(store):
    with pytest.raises(StoreUnusableError, match=r"another server uses it.*--data-dir"):
        await SqliteStore(store._path).open()


async def test_nobody_else_may_read_what_callers_sent(store):
    assert stat.S_IMODE(store._path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store._path.parent.stat().st_mode) == 0o700


async def test_many_writes_at_a_time_share_commits(store, monkeypatch):
    commits, commit = [], store._commit

    def noting(batch):
        commits.append(len(batch))
        return commit(batch)

    monkeypatch.setattr(store, "_commit", noting)
    await asyncio.gather(*(store.add(adaptation(number)) for number in range(200)))
    assert sum(commits) == 200
    assert len(commits) < 100


async def test_of_writes_at_a_time_each_finds_what_it_would_have_found_by_itself(store):
    def asked(number, request, expires_ns=10**18):
        summary = adaptation(number).summary._replace(request_id=request, expires_ns=expires_ns, created_ns=10)
        return adaptation(number)._replace(summary=summary)

    await store.add(asked(1, "there"))
    await store.add(asked(2, "expired", expires_ns=5))
    adaptations = asked(3, "new"), asked(4, "there"), asked(5, "new"), asked(6, "expired"), asked(7, "")
    made = await asyncio.gather(*map(store.add, adaptations))
    assert [each and each.id for each in made] == [None, "id1", "id3", None, None]
    kept = [each.id for each in await store.list("me", "", None, 0, 100)]
    assert sorted(kept) == ["id1", "id3", "id6", "id7"]
    totals = await store.totals()
    stored = [await store.get(each) for each in kept]
    assert totals == (4, sum(each.size_bytes for each in stored))


async def test_one_write_that_fails_does_not_take_others_with_it(store):
    await store.add(adaptation(1))
    outcomes = await asyncio.gather(*(store.add(adaptation(number)) for number in (2, 1, 3)), return_exceptions=True)
    assert [outcome is None for outcome in outcomes] == [True, False, True]
    assert (await store.totals()).records == 3


async def test_a_write_that_nobody_foresaw_to_fail_fails_alone(store):
    unwritable = adaptation(2)._replace(summary=adaptation(2).summary._replace(expires_ns=2**80))
    added = [store.add(each) for each in (adaptation(1), unwritable, adaptation(3))]
    outcomes = await asyncio.wait_for(asyncio.gather(*added, return_exceptions=True), 10)
    assert [type(outcome) for outcome in outcomes] == [type(None), OverflowError, type(None)]
    assert (await store.totals()).records == 2


@pytest.mark.parametrize("content", [b"not a database, but something that was there before it", b""])
async def test_a_file_that_is_something_else_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    store = SqliteStore(path)
    if content:
        with pytest.raises(StoreUnusableError, match="--store memory"):
            await store.open()
        assert path.read_bytes() == content
    else:
        await store.open()
        await store.close()


async def test_a_start_takes_no_longer_for_many_adaptations(tmp_path, monkeypatch):
    steps, connect = [], SqliteStore._connect

    def counting(store):
        connection = connect(store)
        connection.set_progress_handler(lambda: steps.append(1), 10)
        return connection

    async def start(kept):
        """What the database does, in tens of steps, until the first adaptations are found."""
        path = tmp_path / str(kept)
        store = SqliteStore(path)
        await store.open()
        await asyncio.gather(*(store.add(adaptation(number)) for number in range(kept)))
        await store.close()
        monkeypatch.setattr(SqliteStore, "_connect", counting)
        steps.clear()
        store = SqliteStore(path)
        await store.open()
        assert await store.get("id1") == adaptation(1)
        assert (await store.totals()).records == kept
        assert not await store.expire(1, 1000)
        assert len(await store.list("me", "", None, 0, 5)) == 5
        await store.close()
        monkeypatch.undo()
        return len(steps)

    assert await start(3000) <= await start(30) + 5

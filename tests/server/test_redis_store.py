"""What is particular to the Redis store: how it sees to it that the disk has what was answered, and being away."""

import pytest
from power_log_writer import adaptation
from redis import exceptions
from redis_server import redis_server

from innerloop_server.adaptations.stores.interface import StoreUnusableError
from innerloop_server.adaptations.stores.redis import RedisStore
from innerloop_server.domain.errors import StoreUnavailableError


async def test_a_server_that_is_away_at_first_is_used_once_it_is_there(redis):
    store = RedisStore(redis.url)
    redis.kill()
    try:
        await store.open()
        with pytest.raises(StoreUnavailableError):
            await store.add(adaptation("early"))
    finally:
        redis.start()
    assert await store.add(adaptation("late")) is None
    assert await store.get("late") == adaptation("late")
    await store.delete("late")
    await store.close()


async def test_a_connection_that_can_not_be_closed_in_time_does_not_fail_a_stop(redis, monkeypatch):
    store = RedisStore(redis.url)
    await store.open()

    async def too_slow(*_: object) -> None:
        raise exceptions.TimeoutError("Timed out closing connection")

    monkeypatch.setattr(store._redis.connection_pool, "disconnect", too_slow)
    await store.close()


async def test_an_address_of_no_server_is_refused():
    with pytest.raises(StoreUnusableError, match="no address"):
        await RedisStore("redis://host:not-a-port").open()


CASES = [("always", True, False), ("everysec", True, True), ("everysec", False, False)]


@pytest.mark.parametrize(("appendfsync", "synchronous", "warns"), CASES)
async def test_says_when_the_server_may_lose_what_it_acknowledged(tmp_path, capsys, appendfsync, synchronous, warns):
    with redis_server(tmp_path, "--appendfsync", appendfsync) as server:
        store = RedisStore(server.url, synchronous=synchronous)
        await store.open()
        await store.add(adaptation("a"))
        said = "may lose" in capsys.readouterr().out
        assert (said or store._waits) == warns, "a newer one is waited for instead"
        assert await store.get("a") == adaptation("a")
        await store.close()

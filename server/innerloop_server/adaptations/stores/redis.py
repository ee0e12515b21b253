"""Keeps adaptations on a Redis or Valkey server, which any number of servers share.

Each adaptation is a hash; its owner has a sorted set of theirs by the time they were made, and all expiries are in
one more. Every change is one script, which the server runs as a whole or not at all. Times are strings of 20 digits and
compared as such, because numbers in scripts have only 53 bits.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, cast

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from innerloop_server.adaptations.stores.interface import (
    AdaptationStore,
    DamagedError,
    Part,
    StoredAdaptation,
    StoreUnusableError,
    Summary,
    Totals,
)
from innerloop_server.domain.errors import StoreUnavailableError, TooManyAdaptationsError

SECONDS = 2.0
"""Seconds to wait for an answer of the server before it counts as away."""

CONNECTIONS = 32

FIRST_THAT_WAITS = (7, 2)
"""The first version of Redis that can be asked to answer once its disk has what it was given (WAITAOF)."""

PREFIX = "{innerloop}:"  # braces: a cluster keeps all keys that have the same word in them on one node
FIELDS = ("id", "owner", "model", "revision", "created", "expires", "request", "record")
PARTS = ("state", "recipe")

COMMON = f"""
local prefix = '{PREFIX}'
local expiries, totals = prefix .. 'expiries', prefix .. 'totals'
local fields = {{{", ".join(f"'{field}'" for field in FIELDS)}}}
local function key_of(id) return prefix .. 'adaptation:' .. id end
local function owned_by(owner) return prefix .. 'owner:' .. owner end
local function request_of(owner, request) return prefix .. 'request:' .. #owner .. ':' .. owner .. ':' .. request end
local function summary(id) return redis.call('HMGET', key_of(id), unpack(fields)) end
local function put(kept, state, recipe)
    local id, owner, created, expires, request, record = kept[1], kept[2], kept[5], kept[6], kept[7], kept[8]
    local size = #record + #state + #recipe
    redis.call('HSET', key_of(id), 'id', id, 'owner', owner, 'model', kept[3], 'revision', kept[4], 'created', created,
        'expires', expires, 'request', request, 'record', record, 'state', state, 'recipe', recipe, 'size', size)
    redis.call('ZADD', owned_by(owner), 0, created .. ':' .. id)
    redis.call('ZADD', expiries, expires, id)
    if request ~= '' then redis.call('SET', request_of(owner, request), id) end
    redis.call('HINCRBY', totals, 'records', 1)
    redis.call('HINCRBY', totals, 'bytes', size)
end
local function drop(id)
    local kept = redis.call('HMGET', key_of(id), 'owner', 'created', 'request', 'size')
    redis.call('ZREM', expiries, id)
    if not kept[1] then return false end
    redis.call('DEL', key_of(id))
    redis.call('ZREM', owned_by(kept[1]), kept[2] .. ':' .. id)
    local request = request_of(kept[1], kept[3])
    if redis.call('GET', request) == id then redis.call('DEL', request) end
    redis.call('HINCRBY', totals, 'records', -1)
    redis.call('HINCRBY', totals, 'bytes', -kept[4])
    return true
end
"""

ADD = """
local id, owner, created, request = ARGV[1], ARGV[2], ARGV[5], ARGV[7]
if redis.call('EXISTS', key_of(id)) == 1 then return false end  -- this was asked before, and the answer was lost
if request ~= '' then
    local made = redis.call('GET', request_of(owner, request))
    if made then
        local kept = summary(made)
        if kept[6] and kept[6] > created then return kept end
        drop(made)
    end
end
if ARGV[11] ~= '' and redis.call('ZCARD', owned_by(owner)) >= tonumber(ARGV[11]) then return 'full' end
put(ARGV, ARGV[9], ARGV[10])
return false
"""

REPLACE = """
local revision, expires, record = unpack(redis.call('HMGET', key_of(ARGV[1]), 'revision', 'expires', 'record'))
if revision == ARGV[4] and record == ARGV[8] then return 1 end  -- this was asked before, and the answer was lost
if revision ~= ARGV[11] then return 0 end
if expires > ARGV[6] then ARGV[6] = expires end
drop(ARGV[1])
put(ARGV, ARGV[9], ARGV[10])
return 1
"""

DELETE = "return drop(ARGV[1]) and 1 or 0"

TOUCH = """
for n = 1, #ARGV, 2 do
    local kept = redis.call('HGET', key_of(ARGV[n]), 'expires')
    if kept and kept < ARGV[n + 1] then
        redis.call('HSET', key_of(ARGV[n]), 'expires', ARGV[n + 1])
        redis.call('ZADD', expiries, ARGV[n + 1], ARGV[n])
    end
end
"""

EXPIRE = """
local expired = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', expiries, '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])) do
    local kept = summary(id)
    if not kept[6] then
        redis.call('ZREM', expiries, id)
    elseif kept[6] <= ARGV[1] then
        drop(id)
        expired[#expired + 1] = kept
    end
end
return expired
"""


class RedisStore(AdaptationStore):
    """Adaptations on a server.

    Args:
        url: of the server.
        synchronous: whether a change counts only once the server has it on its disk.
    """

    durable = shared = True

    def __init__(self, url: str, *, synchronous: bool = True) -> None:
        self._url = url
        self._learned = not synchronous  # whether it is known if changes must wait for the server's disk
        self._waits = False  # because the server can, and does not by itself

    async def open(self) -> None:
        """See AdaptationStore.open: a server that is away now may come later."""
        try:
            pool = BlockingConnectionPool.from_url(
                self._url,
                max_connections=CONNECTIONS,
                timeout=SECONDS,
                socket_timeout=SECONDS,
                socket_connect_timeout=SECONDS,
                retry=Retry(NoBackoff(), 1),
            )
        except ValueError as error:
            raise StoreUnusableError(f"is no address of a Redis server: {error}") from error
        self._redis: Redis = Redis(connection_pool=pool)
        self._scripts = {
            script: self._redis.register_script(COMMON + script) for script in (ADD, REPLACE, DELETE, TOUCH, EXPIRE)
        }

    async def close(self) -> None:
        """See AdaptationStore.close."""
        # Nothing waits to be written any more, so a connection that can't be closed in time costs nothing.
        with suppress(RedisError, OSError):
            await self._redis.aclose()
            await self._redis.connection_pool.disconnect()

    async def add(self, adaptation: StoredAdaptation, most: int | None = None) -> Summary | None:
        """See AdaptationStore.add."""
        made = await self._change(ADD, *_arguments(adaptation), "" if most is None else most)
        if made == b"full" and most is not None:
            raise TooManyAdaptationsError(most)
        return _summary(made) if made else None

    async def count(self, owner: str) -> int:
        """See AdaptationStore.count."""
        return int(await self._ask(lambda redis: redis.zcard(f"{PREFIX}owner:{owner}")))

    async def replace(self, adaptation: StoredAdaptation) -> bool:
        """See AdaptationStore.replace."""
        return bool(await self._change(REPLACE, *_arguments(adaptation), adaptation.summary.revision - 1))

    async def delete(self, adaptation_id: str) -> bool:
        """See AdaptationStore.delete."""
        return bool(await self._change(DELETE, adaptation_id))

    async def get(self, adaptation_id: str) -> StoredAdaptation | None:
        """See AdaptationStore.get."""
        kept = await self._ask(lambda redis: redis.hmget(_key(adaptation_id), [*FIELDS, *PARTS]))
        if all(value is None for value in kept):
            return None
        state, recipe = kept[len(FIELDS) :]
        return StoredAdaptation(_summary(kept[: len(FIELDS)]), state or b"", recipe or b"")

    async def look(self, adaptation_id: str) -> Summary | None:
        """See AdaptationStore.look."""
        kept = await self._ask(lambda redis: redis.hmget(_key(adaptation_id), [*FIELDS]))
        return None if all(value is None for value in kept) else _summary(kept)

    async def revision(self, adaptation_id: str) -> int | None:
        """See AdaptationStore.revision."""
        kept = await self._ask(lambda redis: redis.hget(_key(adaptation_id), "revision"))
        try:
            return None if kept is None else int(kept)
        except ValueError as error:
            raise DamagedError(Part.RECORD) from error

    async def made_by(self, owner: str, request_id: str) -> Summary | None:
        """See AdaptationStore.made_by."""
        name = f"{PREFIX}request:{len(owner.encode())}:{owner}:{request_id}"
        made = await self._ask(lambda redis: redis.get(name))
        return None if made is None else await self.look(made.decode())

    async def list(self, owner: str, model: str, before_ns: int | None, after_ns: int, limit: int) -> Sequence[Summary]:
        """See AdaptationStore.list."""
        found: list[Summary] = []
        below = "+" if before_ns is None else f"({before_ns:020}"
        while len(found) < limit:
            members = await self._ask(partial(_owned, f"{PREFIX}owner:{owner}", below, limit))
            if not members:
                break
            below = f"({members[-1].decode()}"
            ids = [member.decode().partition(":")[2] for member in members]
            found += [
                kept
                for kept in await self._look_at(ids)
                if kept is not None and kept.expires_ns > after_ns and model in ("", kept.model)
            ]
        return found[:limit]

    async def scan(self, model: str, cursor: str, limit: int) -> tuple[Sequence[Summary], str]:
        """See AdaptationStore.scan."""
        position, members = await self._ask(
            lambda redis: redis.zscan(f"{PREFIX}expiries", int(cursor or 0), count=limit)
        )
        kept = await self._look_at([member.decode() for member, _ in members])
        return [each for each in kept if each is not None and each.model == model], str(position) if position else ""

    async def touch(self, expiries: Mapping[str, int]) -> None:
        """See AdaptationStore.touch."""
        pairs = [value for each, expires_ns in expiries.items() for value in (each, f"{expires_ns:020}")]
        await self._change(TOUCH, *pairs)

    async def expire(self, now_ns: int, limit: int) -> Sequence[Summary]:
        """See AdaptationStore.expire."""
        expired = await self._change(EXPIRE, f"{now_ns:020}", limit)
        return [summary for summary in map(_readable, expired) if summary is not None]

    async def totals(self) -> Totals:
        """See AdaptationStore.totals."""
        records, size_bytes = await self._ask(lambda redis: redis.hmget(f"{PREFIX}totals", ["records", "bytes"]))
        return Totals(int(records or 0), int(size_bytes or 0))

    async def _look_at(self, ids: Sequence[str]) -> Sequence[Summary | None]:
        """Several summaries in one round trip; None for those that are gone, or can't be read."""

        async def ask(redis: Redis) -> Any:
            pipeline = redis.pipeline(transaction=False)
            for each in ids:
                pipeline.hmget(_key(each), [*FIELDS])
            return await pipeline.execute()

        return [*map(_readable, await self._ask(ask))]

    async def _change(self, script: str, *arguments: str | int | bytes) -> Any:
        """Run a script, and wait until what it changed is as safe as was asked for."""

        async def ask(redis: Redis) -> Any:
            if not self._learned:
                self._waits, self._learned = await self._must_wait(), True
            if not self._waits:
                return await self._scripts[script](args=arguments)
            pipeline: Pipeline = redis.pipeline(transaction=False)
            await self._scripts[script](args=arguments, client=pipeline)
            pipeline.execute_command("WAITAOF", 1, 0, int(SECONDS * 1000))
            result, (synced, _) = await pipeline.execute()
            if not synced:
                raise ResponseError("the disk did not take it in time")
            return result

        return await self._ask(ask)

    async def _ask(self, call: "Callable[[Redis], Awaitable[Any]]") -> Any:
        try:
            return await call(self._redis)
        except (RedisError, OSError) as error:
            structlog.get_logger().error("store does not answer", store="redis", reason=str(error))
            raise StoreUnavailableError from error

    async def _must_wait(self) -> bool:
        """Whether changes must wait for the server's disk: it can wait for it, and does not by itself."""
        log = structlog.get_logger()
        try:
            settings = cast("Mapping[Any, Any]", await self._redis.config_get("append*"))
            kept = {_text(name): _text(value) for name, value in settings.items()}
            version = str((await self._redis.info("server"))["redis_version"])
        except ResponseError as error:
            log.warning("Redis does not tell whether it keeps what it is given", reason=str(error))
            return False
        if kept.get("appendonly") == "yes" and kept.get("appendfsync") == "always":
            return False
        if kept.get("appendonly") == "yes" and tuple(map(int, version.split(".")[:2])) >= FIRST_THAT_WAITS:
            return True
        log.warning("Redis may lose what it acknowledged: set appendonly yes and appendfsync always", **kept)
        return False


def _key(adaptation_id: str) -> str:
    return f"{PREFIX}adaptation:{adaptation_id}"


async def _owned(name: str, below: str, limit: int, redis: Redis) -> Any:
    """The members of an owner's set before one of them, newest first."""
    return await redis.zrevrangebylex(name, below, "-", 0, limit)


def _arguments(adaptation: StoredAdaptation) -> Sequence[str | int | bytes]:
    """An adaptation as arguments of a script, in the order of FIELDS and PARTS."""
    summary = adaptation.summary
    return [
        summary.id,
        summary.owner,
        summary.model,
        summary.revision,
        f"{summary.created_ns:020}",
        f"{summary.expires_ns:020}",
        summary.request_id,
        summary.record,
        adaptation.state,
        adaptation.recipe,
    ]


def _summary(kept: Sequence[bytes | None]) -> Summary:
    """The summary whose fields are kept as these.

    Raises:
        DamagedError: they are no summary.
    """
    try:
        adaptation_id, owner, model, revision, created, expires, request, record = cast("Sequence[bytes]", kept)
        return Summary(
            adaptation_id.decode(),
            owner.decode(),
            model.decode(),
            int(revision),
            int(created),
            int(expires),
            request.decode(),
            record,
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise DamagedError(Part.RECORD) from error


def _readable(kept: Sequence[bytes | None]) -> Summary | None:
    """The summary whose fields are kept as these; None if they are no summary."""
    try:
        return _summary(kept)
    except DamagedError:
        return None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value

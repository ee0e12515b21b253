"""Keeps adaptations in one SQLite file, which one server uses at a time.

One thread writes: it takes whatever waits, commits it as one transaction, and only then are those who wait told, so
that many callers share one fsync. Two other threads read, each on a connection of its own, and see what was committed.
"""

import asyncio
import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Generic, NamedTuple, TypeVar

import structlog

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

R = TypeVar("R")

FORMAT = 1
"""Version of the tables, in the file's `user_version`."""

MOST_TOGETHER = 512
"""Most writes that share one transaction, so that the first of them does not wait for too many others."""

BUSY_MILLISECONDS = 2000
"""Milliseconds to wait for a lock of another program, such as one that copies the file."""

READERS = 2

SCHEMA = """
CREATE TABLE adaptations (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    model TEXT NOT NULL,
    revision INTEGER NOT NULL,
    created_ns INTEGER NOT NULL,
    expires_ns INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    record BLOB NOT NULL,
    parts INTEGER NOT NULL
) STRICT;
CREATE INDEX by_owner ON adaptations (owner, created_ns);
CREATE INDEX by_expiry ON adaptations (expires_ns);
CREATE UNIQUE INDEX by_request ON adaptations (owner, request_id) WHERE request_id != '';
-- Large values lie apart, so that lists and sweeps don't read past them.
CREATE TABLE parts (
    number INTEGER PRIMARY KEY,
    state BLOB NOT NULL,
    recipe BLOB NOT NULL
) STRICT;
CREATE TABLE totals (records INTEGER NOT NULL, bytes INTEGER NOT NULL) STRICT;
INSERT INTO totals VALUES (0, 0);
"""

SUMMARY = "id, owner, model, revision, created_ns, expires_ns, request_id, record"

Read = Callable[[sqlite3.Connection], R]


class _Transaction:
    """Writes that are committed together, and how they change the totals, which are written once for all of them.

    Every statement gives the interpreter away and takes it back, beside an event loop that wants it too, which costs
    more than what the statement does. So there are as few as possible.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._records = self._bytes = 0

    def insert(self, adaptation: StoredAdaptation) -> bool:
        """Add an adaptation; false, and nothing is done, if its request has made one already."""
        insert = "INSERT INTO parts (state, recipe) VALUES (?, ?)"
        number = self.connection.execute(insert, (adaptation.state, adaptation.recipe)).lastrowid
        insert = (
            "INSERT INTO adaptations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (owner, request_id) WHERE request_id != '' DO NOTHING"
        )
        if not self.connection.execute(insert, (*adaptation.summary, number)).rowcount:
            self.connection.execute("DELETE FROM parts WHERE number = ?", (number,))
            return False
        self._change(1, adaptation.size_bytes)
        return True

    def delete(self, adaptation_id: str) -> bool:
        """Take an adaptation away; false if there is none of that id."""
        query = (
            "SELECT parts, length(record) + length(state) + length(recipe) "
            "FROM adaptations JOIN parts ON parts = number WHERE id = ?"
        )
        row = self.connection.execute(query, (adaptation_id,)).fetchone()
        if row is None:
            return False
        number, size = row
        self.connection.execute("DELETE FROM adaptations WHERE id = ?", (adaptation_id,))
        self.connection.execute("DELETE FROM parts WHERE number = ?", (number,))
        self._change(-1, -size)
        return True

    def commit(self) -> None:
        """Write the totals, and commit."""
        if self._records or self._bytes:
            update = "UPDATE totals SET records = records + ?, bytes = bytes + ?"
            self.connection.execute(update, (self._records, self._bytes))
        self.connection.execute("COMMIT")

    def _change(self, records: int, size: int) -> None:
        self._records += records
        self._bytes += size


Write = Callable[[_Transaction], R]


class _Waiting(NamedTuple, Generic[R]):
    """A write, and who waits for it."""

    write: Write[R]
    future: "asyncio.Future[R]"


class SqliteStore(AdaptationStore):
    """Adaptations in a file.

    Args:
        path: of the file; beside it lie the files `-wal`, `-shm` and `.lock` of the same name.
        synchronous: whether a commit is on the disk before it counts; otherwise a power loss may undo the last ones.
    """

    durable, shared = True, False

    def __init__(self, path: Path, *, synchronous: bool = True) -> None:
        self._path = path
        self._synchronous = synchronous
        self._waiting: SimpleQueue[_Waiting[Any] | None] = SimpleQueue()
        self._writer = threading.Thread(target=self._write_all, name="store-writer", daemon=True)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        self._local = threading.local()  # of each reader
        self._connections: list[sqlite3.Connection] = []
        self._lock_file: int | None = None

    async def open(self) -> None:
        """See AdaptationStore.open: makes the file where there is none."""
        self._loop = asyncio.get_running_loop()
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock()
            self._connection = self._connect()
            self._prepare(self._connection)
            _sync_folder(self._path.parent)
        except (OSError, sqlite3.Error) as error:
            self._unlock()
            raise StoreUnusableError(
                f"can't use {self._path} ({getattr(error, 'strerror', None) or error}); name another file with "
                "--store sqlite:PATH or another folder with --data-dir, or keep nothing with --store memory"
            ) from error
        self._writer.start()

    async def close(self) -> None:
        """See AdaptationStore.close."""
        self._waiting.put(None)
        await asyncio.to_thread(self._writer.join)
        self._readers.shutdown()
        for connection in (*self._connections, self._connection):
            with suppress(sqlite3.Error):
                connection.close()
        self._unlock()

    async def add(self, adaptation: StoredAdaptation, most: int | None = None) -> Summary | None:
        """See AdaptationStore.add."""
        summary = adaptation.summary

        def write(transaction: _Transaction) -> Summary | None:
            if most is None and transaction.insert(adaptation):
                return None
            connection = transaction.connection
            made = _made_by(connection, summary.owner, summary.request_id)
            if made is not None:
                if made.expires_ns > summary.created_ns:
                    return made
                transaction.delete(made.id)
            if most is not None and _count(connection, summary.owner) >= most:
                raise TooManyAdaptationsError(most)
            transaction.insert(adaptation)
            return None

        return await self._write(write)

    async def count(self, owner: str) -> int:
        """See AdaptationStore.count."""
        return await self._read(lambda connection: _count(connection, owner))

    async def replace(self, adaptation: StoredAdaptation) -> bool:
        """See AdaptationStore.replace."""
        summary = adaptation.summary

        def write(transaction: _Transaction) -> bool:
            before = summary.revision - 1
            query = "SELECT max(expires_ns, ?) FROM adaptations WHERE id = ? AND revision = ?"
            row = transaction.connection.execute(query, (summary.expires_ns, summary.id, before)).fetchone()
            if row is None:
                return False
            transaction.delete(summary.id)
            return transaction.insert(adaptation._replace(summary=summary._replace(expires_ns=row[0])))

        return await self._write(write)

    async def delete(self, adaptation_id: str) -> bool:
        """See AdaptationStore.delete."""
        return await self._write(lambda transaction: transaction.delete(adaptation_id))

    async def get(self, adaptation_id: str) -> StoredAdaptation | None:
        """See AdaptationStore.get."""

        def read(connection: sqlite3.Connection) -> StoredAdaptation | None:
            query = f"SELECT {SUMMARY}, state, recipe FROM adaptations JOIN parts ON parts = number WHERE id = ?"  # noqa: S608
            row = connection.execute(query, (adaptation_id,)).fetchone()
            return None if row is None else StoredAdaptation(Summary(*row[:-2]), *row[-2:])

        return await self._read(read)

    async def look(self, adaptation_id: str) -> Summary | None:
        """See AdaptationStore.look."""
        return await self._read(lambda connection: _one(connection, "id = ?", adaptation_id))

    async def revision(self, adaptation_id: str) -> int | None:
        """See AdaptationStore.revision."""
        kept = await self.look(adaptation_id)
        return None if kept is None else kept.revision

    async def made_by(self, owner: str, request_id: str) -> Summary | None:
        """See AdaptationStore.made_by."""
        return await self._read(lambda connection: _made_by(connection, owner, request_id))

    async def list(self, owner: str, model: str, before_ns: int | None, after_ns: int, limit: int) -> Sequence[Summary]:
        """See AdaptationStore.list."""

        def read(connection: sqlite3.Connection) -> Sequence[Summary]:
            query = (
                f"SELECT {SUMMARY} FROM adaptations WHERE owner = ? AND created_ns < ? AND expires_ns > ? "  # noqa: S608
                "AND ? IN ('', model) ORDER BY created_ns DESC LIMIT ?"
            )
            before = before_ns if before_ns is not None else 2**63 - 1
            return [Summary(*row) for row in connection.execute(query, (owner, before, after_ns, model, limit))]

        return await self._read_many(read)

    async def scan(self, model: str, cursor: str, limit: int) -> tuple[Sequence[Summary], str]:
        """See AdaptationStore.scan."""

        def read(connection: sqlite3.Connection) -> Sequence[Summary]:
            query = f"SELECT {SUMMARY} FROM adaptations WHERE id > ? AND model = ? ORDER BY id LIMIT ?"  # noqa: S608
            return [Summary(*row) for row in connection.execute(query, (cursor, model, limit))]

        found = await self._read_many(read)
        return found, found[-1].id if len(found) == limit else ""

    async def touch(self, expiries: Mapping[str, int]) -> None:
        """See AdaptationStore.touch."""

        def write(transaction: _Transaction) -> None:
            query = "UPDATE adaptations SET expires_ns = max(expires_ns, ?) WHERE id = ?"
            transaction.connection.executemany(query, [(expires_ns, each) for each, expires_ns in expiries.items()])

        await self._write(write)

    async def expire(self, now_ns: int, limit: int) -> Sequence[Summary]:
        """See AdaptationStore.expire; nothing is written when nothing has expired."""

        def read(connection: sqlite3.Connection) -> Sequence[Summary]:
            query = f"SELECT {SUMMARY} FROM adaptations WHERE expires_ns <= ? ORDER BY expires_ns LIMIT ?"  # noqa: S608
            return [Summary(*row) for row in connection.execute(query, (now_ns, limit))]

        def write(transaction: _Transaction) -> Sequence[Summary]:
            expired = read(transaction.connection)
            for summary in expired:
                transaction.delete(summary.id)
            return expired

        return await self._write(write) if await self._read(read) else []

    async def totals(self) -> Totals:
        """See AdaptationStore.totals."""

        def read(connection: sqlite3.Connection) -> Totals:
            return Totals(*connection.execute("SELECT records, bytes FROM totals").fetchone())

        return await self._read(read)

    async def _write(self, write: Write[R]) -> R:
        future: asyncio.Future[R] = self._loop.create_future()
        self._waiting.put(_Waiting(write, future))
        return await asyncio.shield(future)  # a caller that leaves does not take the write back

    async def _read(self, read: Read[R]) -> R:
        return await self._loop.run_in_executor(self._readers, self._read_here, read)

    async def _read_many(self, read: Read[R]) -> R:
        try:
            return await self._read(read)
        except DamagedError as error:  # of the file's structure: not one adaptation's
            raise StoreUnavailableError from error

    def _read_here(self, read: Read[R]) -> R:
        """Read on this thread's connection."""
        try:
            connection = getattr(self._local, "connection", None)
            if connection is None:
                connection = self._local.connection = self._connect()
                self._connections.append(connection)
            return read(connection)
        except sqlite3.OperationalError as error:
            raise self._unavailable("read", error) from error
        except sqlite3.DatabaseError as error:
            raise DamagedError(Part.RECORD) from error

    def _write_all(self) -> None:
        """Commit what waits, again and again, until the store is closed; runs on the writer's thread."""
        while (first := self._waiting.get()) is not None:
            batch, closing = [first], False
            with suppress(Empty):
                while len(batch) < MOST_TOGETHER and not closing:
                    following = self._waiting.get_nowait()
                    if following is None:
                        closing = True
                    else:
                        batch.append(following)
            self._commit_or_each(batch)
            if closing:
                return

    def _commit_or_each(self, batch: Sequence[_Waiting[Any]]) -> None:
        """Commit all writes at once, or, where that fails, each by itself, so that only the culprit fails."""
        try:
            results: Sequence[Any] = self._commit(batch)
        except Exception as error:  # whatever it is, this thread must go on, or all writes would wait for ever
            if len(batch) > 1:
                for waiting in batch:
                    self._commit_or_each([waiting])
                return
            results = [self._unavailable("written", error) if isinstance(error, sqlite3.Error) else error]
        with suppress(RuntimeError):  # the event loop is closed, and nobody waits any more
            self._loop.call_soon_threadsafe(_settle, batch, results)

    def _commit(self, batch: Sequence[_Waiting[Any]]) -> Sequence[Any]:
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            transaction = _Transaction(connection)
            results = [_result(waiting.write, transaction) for waiting in batch]
            transaction.commit()
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return results

    def _unavailable(self, what: str, error: sqlite3.Error) -> StoreUnavailableError:
        structlog.get_logger().error(f"store can't be {what}", store="sqlite", reason=str(error))
        return StoreUnavailableError()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
        connection.execute(f"PRAGMA synchronous = {'FULL' if self._synchronous else 'NORMAL'}")
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        self._path.chmod(0o600)  # it holds what callers sent
        connection.execute("PRAGMA journal_mode = WAL")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT")
        elif version != FORMAT:
            raise sqlite3.DatabaseError(f"another version of the server made it, format {version}")

    def _lock(self) -> None:
        """Keep other servers out: what they change would not be noticed here."""
        self._lock_file = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OSError(error.errno, "another server uses it") from error

    def _unlock(self) -> None:
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None


def _sync_folder(folder: Path) -> None:
    """Have the disk take note of files that are new or gone; SQLite does so for some of them only."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _settle(batch: Sequence[_Waiting[Any]], results: Sequence[Any]) -> None:
    """Tell those who wait what came of their writes."""
    for waiting, result in zip(batch, results, strict=True):
        if waiting.future.done():
            continue
        if isinstance(result, Exception):
            waiting.future.set_exception(result)
            waiting.future.exception()  # retrieved: whoever waited may have left
        else:
            waiting.future.set_result(result)


def _result(write: Write[R], transaction: _Transaction) -> R | TooManyAdaptationsError:
    """Result of a write, or the reason why it was refused, which must not undo what others write with it."""
    try:
        return write(transaction)
    except TooManyAdaptationsError as refused:
        return refused


def _one(connection: sqlite3.Connection, condition: str, *values: str) -> Summary | None:
    row = connection.execute(f"SELECT {SUMMARY} FROM adaptations WHERE {condition}", values).fetchone()  # noqa: S608
    return None if row is None else Summary(*row)


def _made_by(connection: sqlite3.Connection, owner: str, request_id: str) -> Summary | None:
    return _one(connection, "owner = ? AND request_id = ? AND request_id != ''", owner, request_id)


def _count(connection: sqlite3.Connection, owner: str) -> int:
    """The number of an owner's adaptations, of which the index alone is read."""
    query = "SELECT count(*) FROM adaptations INDEXED BY by_owner WHERE owner = ?"
    (number,) = connection.execute(query, (owner,)).fetchone()
    return int(number)

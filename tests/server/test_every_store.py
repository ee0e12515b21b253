"""Every store does what a simple model of it does, and what it acknowledged is there after a crash."""

import asyncio
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from innerloop_server.adaptations.stores.fallback import FallbackStore
from innerloop_server.adaptations.stores.interface import StoredAdaptation, Summary, Totals
from innerloop_server.adaptations.stores.memory import MemoryStore
from innerloop_server.adaptations.stores.sqlite import SqliteStore
from innerloop_server.adaptations.stores.write_behind import WriteBehindStore
from innerloop_server.domain.errors import TooManyAdaptationsError

OWNERS, MODELS, REQUESTS = ("anna", "béla:1", ""), ("a", "b"), ("", "", "r1", "r2")


@dataclass
class Model:
    """What a store should be."""

    kept: dict[str, StoredAdaptation] = field(default_factory=dict)

    def of(self, owner):
        return [each for each in self.kept.values() if each.summary.owner == owner]

    def by_request(self, owner, request_id):
        found = [each.summary for each in self.kept.values() if request_id]
        return next((each for each in found if (each.owner, each.request_id) == (owner, request_id)), None)


class Kind:
    """How a store is made, and what comes back after a crash."""

    whole = True  # whether states and recipes are kept, too

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="innerloop-store-"))

    def crash(self):
        """A store as a new process finds it that starts after this one was killed; None where it is lost."""

    def remove(self):
        shutil.rmtree(self.folder, ignore_errors=True)


class Memory(Kind):
    whole = False

    def make(self):
        return MemoryStore()


class Sqlite(Kind):
    def make(self):
        return SqliteStore(self.folder / "store.sqlite")

    def crash(self):
        # The files as they are, while the store still has them open.
        before, self.folder = self.folder, Path(tempfile.mkdtemp(prefix="innerloop-store-"))
        for file in before.glob("store.sqlite*"):
            if file.suffix != ".lock":
                shutil.copy(file, self.folder)
        return self.make()


class WriteBehind(Sqlite):
    """Crashes only when everything was written, since it may lose the rest."""

    def make(self):
        return WriteBehindStore(super().make())

    def crash(self):
        return None


class Fallback(Sqlite):
    def make(self):
        return FallbackStore(super().make())


class Redis(Kind):
    server = None

    def make(self):
        from innerloop_server.adaptations.stores.redis import RedisStore

        return RedisStore(self.server.url)

    def crash(self):
        self.server.kill()
        self.server.start()
        return self.make()


def store_machine(kind_of_store):
    class StoreMachine(RuleBasedStateMachine):
        @initialize()
        def begin(self):
            self.loop = asyncio.new_event_loop()
            self.kind, self.model, self.now, self.number = kind_of_store(), Model(), 1_700_000_000_000_000_000, 0
            self.store = self.opened(self.kind.make())
            if isinstance(self.kind, Redis):
                self.run(self.store._redis.flushall())

        def run(self, call):
            return self.loop.run_until_complete(asyncio.wait_for(call, 20))

        def opened(self, store):
            async def open_it():  # stores make locks and tasks of the loop that runs
                await store.open()
                return store

            return self.run(open_it())

        def teardown(self):
            if hasattr(self, "store"):
                self.run(self.store.close())
                self.kind.remove()
                self.loop.close()

        def adaptation(self, owner, model, request, life, size, revision=1, adaptation_id=None):
            self.number += 1
            self.now += 1
            summary = Summary(
                adaptation_id or f"id{self.number}",
                owner,
                model,
                revision,
                self.now,
                self.now + life,
                request,
                b"record%d" % self.number,
            )
            return StoredAdaptation(summary, b"s" * size, b"recipe")

        def as_kept(self, adaptation):
            return adaptation if self.kind.whole else adaptation._replace(state=b"", recipe=b"")

        @rule(
            owner=st.sampled_from(OWNERS),
            model=st.sampled_from(MODELS),
            request=st.sampled_from(REQUESTS),
            life=st.sampled_from([10, 1000, 2**61]),
            size=st.sampled_from([0, 10, 5000]),
            most=st.sampled_from([None, None, 1, 2, 3]),
        )
        def add(self, owner, model, request, life, size, most):
            adaptation = self.adaptation(owner, model, request, life, size)
            try:
                made = self.run(self.store.add(adaptation, most))
            except TooManyAdaptationsError:
                made = "too many"
            expected = self.model.by_request(owner, request)
            if expected is not None and expected.expires_ns <= adaptation.summary.created_ns:
                del self.model.kept[expected.id]
                expected = None
            if expected is None and most is not None and len(self.model.of(owner)) >= most:
                expected = "too many"
            assert made == expected
            if expected is None:
                self.model.kept[adaptation.summary.id] = self.as_kept(adaptation)

        @rule(number=st.integers(1, 12), ahead=st.sampled_from([0, 1, 1, 2]))
        def replace(self, number, ahead):
            before = self.model.kept.get(f"id{number}")
            summary = before.summary if before else None
            revision = (summary.revision if summary else 1) + ahead
            new = self.adaptation(
                summary.owner if summary else "anna",
                summary.model if summary else "a",
                summary.request_id if summary else "",
                1000,
                20,
                revision,
                f"id{number}",
            )
            if summary:
                new = new._replace(summary=new.summary._replace(created_ns=summary.created_ns))
            replaced = self.run(self.store.replace(new))
            assert replaced == (before is not None and ahead == 1)
            if replaced:
                expires_ns = max(before.summary.expires_ns, new.summary.expires_ns)
                new = new._replace(summary=new.summary._replace(expires_ns=expires_ns))
                self.model.kept[new.summary.id] = self.as_kept(new)

        @rule(number=st.integers(1, 12))
        def delete(self, number):
            there = self.model.kept.pop(f"id{number}", None) is not None
            assert self.run(self.store.delete(f"id{number}")) == there

        @rule(number=st.integers(1, 12), life=st.integers(-5, 2000))
        def touch(self, number, life):
            self.run(self.store.touch({f"id{number}": self.now + life, "gone": self.now}))
            kept = self.model.kept.get(f"id{number}")
            if kept is not None:
                expires_ns = max(kept.summary.expires_ns, self.now + life)
                self.model.kept[f"id{number}"] = kept._replace(summary=kept.summary._replace(expires_ns=expires_ns))

        @rule(seconds=st.sampled_from([5, 500]))
        def expire(self, seconds):
            self.now += seconds
            expired = set()
            while found := self.run(self.store.expire(self.now, 2)):
                assert len(found) <= 2
                expired |= {summary.id for summary in found}
            due = {each for each, kept in self.model.kept.items() if kept.summary.expires_ns <= self.now}
            assert expired == due
            for each in due:
                del self.model.kept[each]

        @rule(owner=st.sampled_from(OWNERS), model=st.sampled_from(["", *MODELS]), limit=st.integers(1, 4))
        def list_pages(self, owner, model, limit):
            expected = [
                kept.summary
                for kept in self.model.kept.values()
                if kept.summary.owner == owner
                and model in ("", kept.summary.model)
                and kept.summary.expires_ns > self.now
            ]
            found, before = [], None
            while page := self.run(self.store.list(owner, model, before, self.now, limit)):
                assert len(page) <= limit
                found += page
                before = page[-1].created_ns
            assert found == sorted(expected, key=lambda summary: -summary.created_ns)

        @rule(model=st.sampled_from(MODELS), limit=st.integers(1, 4))
        def scan(self, model, limit):
            found, cursor = self.run(self.store.scan(model, "", limit))
            while cursor:
                more, cursor = self.run(self.store.scan(model, cursor, limit))
                found = [*found, *more]
            expected = {kept.summary for kept in self.model.kept.values() if kept.summary.model == model}
            assert set(found) == expected

        @rule()
        def crash(self):
            after = self.kind.crash()
            if after is not None:
                before, self.store = self.store, self.opened(after)
                self.run(before.close())

        @rule(number=st.integers(1, 12))
        def read(self, number):
            kept = self.model.kept.get(f"id{number}")
            assert self.run(self.store.get(f"id{number}")) == kept
            summary = None if kept is None else kept.summary
            assert self.run(self.store.look(f"id{number}")) == summary
            assert self.run(self.store.revision(f"id{number}")) == (summary.revision if summary else None)

        @rule(owner=st.sampled_from(OWNERS))
        def count(self, owner):
            assert self.run(self.store.count(owner)) == len(self.model.of(owner))

        @rule(owner=st.sampled_from(OWNERS), request=st.sampled_from(["r1", "r2"]))
        def made_by(self, owner, request):
            assert self.run(self.store.made_by(owner, request)) == self.model.by_request(owner, request)

        @precondition(lambda self: not isinstance(self.kind, WriteBehind))
        @invariant()
        def the_books_balance(self):
            sizes = [kept.size_bytes for kept in self.model.kept.values()]
            assert self.run(self.store.totals()) == Totals(len(sizes), sum(sizes))

    return StoreMachine


FEW = settings(max_examples=6, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(FEW, max_examples=200, stateful_step_count=50)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("effort", [pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", [Memory, Sqlite, WriteBehind, Fallback, Redis], ids=lambda kind: kind.__name__)
def test_a_store_does_what_the_model_does_through_crashes(kind, effort, request):
    if kind is Redis:
        Redis.server = request.getfixturevalue("redis")
        effort = settings(effort, max_examples=max(effort.max_examples // 4, 4))
    run_state_machine_as_test(store_machine(kind), settings=effort)

"""Keeps adaptations: their task states in memory as long as there is room, and what brings them back in a store."""

import asyncio
import secrets
from collections.abc import Sequence
from contextlib import suppress

import structlog

from innerloop_server.adaptations.clock import WallClock
from innerloop_server.adaptations.departed import Departed
from innerloop_server.adaptations.fetched import Fetched, open_parts
from innerloop_server.adaptations.live import LiveAdaptation, LiveAdaptations
from innerloop_server.adaptations.parts import KeptParts
from innerloop_server.adaptations.record import NEVER, AdaptationRecord, KeptRecord
from innerloop_server.adaptations.sealing import seal_record, unseal_record
from innerloop_server.adaptations.stores.interface import AdaptationStore, DamagedError, Part, StoredAdaptation, Summary
from innerloop_server.domain.adaptations import KeepOptions, RequestKey
from innerloop_server.domain.errors import (
    AdaptationDamagedError,
    AdaptationEvictedError,
    AdaptationNotFoundError,
    AdaptationTooLargeError,
    StoreUnavailableError,
    TooManyAdaptationsError,
)
from innerloop_server.domain.tasks import AdaptTask, SupportSet
from innerloop_server.engine.interface import AdaptedTask, LoadedModel, TaskState
from innerloop_server.observability.metrics import Metrics

EXPIRY_SHARE = 50
"""A store is told of a use when this share of an adaptation's life has passed since it was told last, and it keeps an
adaptation for that much longer: so most uses write nothing, and none is forgotten."""

EXPIRED_AT_ONCE = 1000
"""Most adaptations that one sweep removes from the store, so that other writes get their turn."""

ASKED_SECONDS = 0.5
"""Seconds that a Predict waits for a shared store to say whether what is in memory is up to date, before it goes on."""


class Keeper:
    """The adaptations of a server. All functions run on the event loop.

    Args:
        store: what lies behind the memory.
        budget: bytes that task states in memory may take; others give way.
        metrics: told about what comes and goes.
        parts: what the store is given.
        now: nanoseconds of the wall clock.
        owner_budget: bytes that one owner's task states in memory may take; None for as many as there are.
        owner_most: adaptations of an owner that has no limit of its own, in the store too; None for any number.
    """

    def __init__(
        self,
        store: AdaptationStore,
        budget: int,
        metrics: Metrics,
        parts: KeptParts = KeptParts(),
        now: WallClock | None = None,
        owner_budget: int | None = None,
        owner_most: int | None = None,
    ) -> None:
        self._store = store
        self._live = LiveAdaptations(budget, metrics, owner_budget)
        self._metrics = metrics
        self._parts = parts
        self._owner_most = owner_most
        self._now = now or WallClock()
        self._departed = Departed()
        self._touched: dict[str, int] = {}  # id -> expiry that the store is yet to be told
        self._last_created_ns = 0
        self._replacing: set[asyncio.Task[LiveAdaptation | None]] = set()

    @property
    def parts(self) -> KeptParts:
        """What the store is given beside records."""
        return self._parts

    def keeps_examples(self, adaptation_id: str, support: SupportSet) -> bool:
        """Whether the store has a place for the examples of an adaptation, and they are small enough."""
        return self._store.brings_back(adaptation_id) and self._parts.keeps(support)

    async def open(self) -> None:
        """Get the store ready. Raises StoreUnusableError: it can't be used at all."""
        await self._store.open()
        self._metrics.store_up(up=True)

    def admit(self, size: int = 0) -> None:
        """Refuse what could not be kept, before anything is computed.

        Raises:
            StoreUnavailableError: the store is known to take nothing now.
            AdaptationTooLargeError: a state of that many bytes is larger than the budget.
        """
        if size > self._live.owner_budget:
            raise AdaptationTooLargeError(size, self._live.owner_budget)
        self._store.admit()

    async def admit_one_more(self, owner: str, model: str, own_most: int | None = None) -> None:
        """Refuse what would be one adaptation too many of an owner, before anything is computed.

        Args:
            owner: whose it would be.
            model: name of the model that would adapt.
            own_most: adaptations that this owner may have; None for as many as any.

        Raises:
            TooManyAdaptationsError: it has as many as it may have.
            StoreUnavailableError: the store can't count them now.
        """
        most = own_most or self._owner_most
        if most is not None and await self._store.count(owner) >= most:
            self._metrics.refused(model, "owner")
            raise TooManyAdaptationsError(most)

    async def keep(
        self,
        owner: str,
        model: LoadedModel,
        task: AdaptTask,
        adapted: AdaptedTask,
        options: KeepOptions,
        own_most: int | None = None,
    ) -> KeptRecord:
        """Keep what a model has adapted to; returns what the same request made before, if another server was first.

        Args:
            owner: identity that may use it.
            model: that adapted.
            task: that it adapted to.
            adapted: the task state, and what else came of adapting.
            options: how to keep it.
            own_most: adaptations that this owner may have; None for as many as any.

        Raises:
            AdaptationTooLargeError: it is larger than the budget.
            TooManyAdaptationsError: its owner has as many as it may have.
            StoreUnavailableError: the store can't keep it now.
        """
        size = adapted.state.size_bytes
        self.admit(size)
        self._last_created_ns = max(self._now(), self._last_created_ns + 1)
        description = model.description
        record = AdaptationRecord(
            id=secrets.token_hex(16),  # of no character that a command line takes for the start of an option
            owner=owner,
            revision=1,
            model=model.name,
            model_digest=description.digest,
            model_version=description.version,
            classes=task.classes,
            support_size=task.support.size,
            steps=task.steps,
            losses=adapted.losses,
            example_weights=adapted.weights,
            size_bytes=size,
            created_ns=self._last_created_ns,
            time_to_live=options.time_to_live,
            request_id=options.request_id,
            fingerprint=options.fingerprint,
            forget_examples=options.forget_examples,
        )
        expires_ns = record.expiry(record.created_ns)
        stored_ns = _stored_expiry(record, expires_ns)
        state = recipe = b""
        if self._store.durable:
            kept = None if options.forget_examples else task
            state, recipe = await self._parts.seal(record.id, model, adapted.state, kept)
        made = await self._add(record, stored_ns, state, recipe, own_most or self._owner_most)
        if made is not None:
            return made
        durable = self._store.brings_back(record.id)
        await self._hold(LiveAdaptation(record, model, adapted.state, durable, expires_ns, stored_ns))
        self._metrics.adaptation_created(model.name)
        return KeptRecord(record, expires_ns)

    async def replace(
        self,
        before: KeptRecord,
        record: AdaptationRecord,
        model: LoadedModel,
        state: TaskState,
        task: AdaptTask | None,
        *,
        hold: bool,
    ) -> LiveAdaptation | None:
        """Put the next revision of an adaptation in the place of the one before.

        A caller that leaves while that is being written does not take it back, and memory and store agree afterwards.

        Args:
            before: what is replaced.
            record: of the next revision.
            model: whose state it is.
            state: the task state.
            task: that led to it; None if its support set must not be kept, or is not known.
            hold: whether it is used: it is held in memory then, where others are only if the one before was, and its
                expiry is postponed.

        Returns:
            the new revision, as far as it can be predicted with; None if another change came first, and nothing was
            done.

        Raises:
            AdaptationNotFoundError: it was deleted meanwhile.
            AdaptationTooLargeError: it is larger than the budget.
            StoreUnavailableError: the store can't keep it now; whether it has is not known.
        """
        self.admit(state.size_bytes)
        parts = (b"", b"")
        if self._store.durable:
            parts = await self._parts.seal(record.id, model, state, task)
        stored = StoredAdaptation(_summary(record, before.expires_ns), *parts)
        replacing = asyncio.create_task(self._replace(stored, record, model, state, before.expires_ns, hold=hold))
        self._replacing.add(replacing)
        replacing.add_done_callback(self._replaced)
        return await asyncio.shield(replacing)

    async def _replace(
        self,
        stored: StoredAdaptation,
        record: AdaptationRecord,
        model: LoadedModel,
        state: TaskState,
        expires_ns: int,
        *,
        hold: bool,
    ) -> LiveAdaptation | None:
        try:
            if not await self._store.replace(stored):
                return None
        except StoreUnavailableError:
            if (known := self._live.peek(record.id)) is not None:
                known.sure = False
            raise
        self._departed.replace(record.id, record.revision)
        known = self._live.peek(record.id)
        expires_ns = expires_ns if known is None else known.expires_ns
        live = LiveAdaptation(record, model, state, self._store.brings_back(record.id), expires_ns, expires_ns)
        if known is not None or hold:
            if self._departed.was_deleted(record.id):
                raise AdaptationNotFoundError
            await self._hold(live)
        if hold:
            self._postpone(live)
        return live

    def _replaced(self, replacing: "asyncio.Task[LiveAdaptation | None]") -> None:
        self._replacing.discard(replacing)
        if not replacing.cancelled():
            replacing.exception()  # retrieved: whoever waited may have left

    async def scan(self, model: str, cursor: str, limit: int) -> tuple[list[AdaptationRecord], str]:
        """Some adaptations of a model, whoever's, and the cursor of those that follow; damaged ones are left out.

        Args:
            model: its name.
            cursor: what the last call returned; empty at first, and when there are no more.
            limit: about so many.
        """
        summaries, cursor = await self._store.scan(model, cursor, limit)
        return [kept.record for kept in map(self._listed, summaries) if kept is not None], cursor

    async def count(self) -> int:
        """Adaptations in the store, of all models."""
        return (await self._store.totals()).records

    async def use(self, owner: str, adaptation_id: str) -> LiveAdaptation | None:
        """The owner's adaptation, its expiry postponed, if it is in memory; None if it must be fetched.

        Raises:
            AdaptationNotFoundError: the owner never had it, or deleted it.
            AdaptationEvictedError: it expired or gave way.
        """
        live = self._live.get(adaptation_id)
        if live is None:
            return None
        self._check(owner, live.record, live.expires_ns)
        if not await self._is_current(live):
            self._live.drop(adaptation_id)
            return None
        self._postpone(live)
        return live

    async def fetch(self, owner: str, adaptation_id: str) -> Fetched:
        """The owner's adaptation from the store, whose state is then to be given to `revive`.

        Raises:
            AdaptationNotFoundError: the owner never had it, or deleted it.
            AdaptationEvictedError: it expired or gave way.
            AdaptationDamagedError: its record is damaged.
            StoreUnavailableError: the store can't be asked now.
        """
        try:
            stored = await self._store.get(adaptation_id)
        except DamagedError as damage:
            raise self._damaged(adaptation_id, damage) from damage
        if stored is None:
            raise self._gone(owner, adaptation_id)
        kept = self._open_for(owner, stored.summary)
        return open_parts(kept, stored)

    async def make_room(self, owner: str, size: int) -> None:
        """Have adaptations give way to a state of an owner, of that many bytes.

        Those that no store can bring back are gone then, and their owners will be told.
        """
        await self._bury(self._live.make_room(owner, size))

    async def _bury(self, given_way: Sequence[LiveAdaptation]) -> None:
        for dropped in given_way:
            if not dropped.durable:
                await self._store.delete(dropped.record.id)
                self._departed.drop(dropped.record.id, dropped.record.owner)
                self._metrics.adaptation_evicted(dropped.record.model)

    async def revive(self, fetched: Fetched, model: LoadedModel, state: TaskState) -> LiveAdaptation | None:
        """Hold the state of an adaptation that was fetched, and postpone its expiry.

        Returns:
            the adaptation; None if another revision has taken its place meanwhile.

        Raises:
            AdaptationNotFoundError: it was deleted meanwhile.
        """
        kept = fetched.kept
        if self._departed.was_deleted(kept.record.id):
            raise AdaptationNotFoundError
        if self._departed.was_replaced(kept.record.id, kept.record.revision):
            return None
        live = LiveAdaptation(kept.record, model, state, True, kept.expires_ns, kept.expires_ns)
        await self._hold(live)
        self._postpone(live)
        return live

    def let_go(self, live: LiveAdaptation) -> None:
        """Free the state of an adaptation, which stays in the store."""
        if self._live.peek(live.record.id) is live:
            self._live.drop(live.record.id)

    async def look(self, owner: str, adaptation_id: str) -> KeptRecord:
        """The owner's adaptation; looking does not count as use. Raises what `fetch` raises."""
        live = self._live.peek(adaptation_id)
        if live is not None and self._up_to_date(live):
            self._check(owner, live.record, live.expires_ns)
            return KeptRecord(live.record, live.expires_ns)
        try:
            summary = await self._store.look(adaptation_id)
        except DamagedError as damage:
            raise self._damaged(adaptation_id, damage) from damage
        except StoreUnavailableError:
            if live is None:
                raise
            self._check(owner, live.record, live.expires_ns)
            return KeptRecord(live.record, live.expires_ns)
        if summary is None:
            raise self._gone(owner, adaptation_id)
        return self._open_for(owner, summary)

    async def known(self, owner: str, adaptation_id: str) -> AdaptationRecord:
        """The record of the owner's adaptation, which another server may have changed a moment ago.

        Raises what `fetch` raises.
        """
        live = self._live.peek(adaptation_id)
        if live is None:
            return (await self.look(owner, adaptation_id)).record
        self._check(owner, live.record, live.expires_ns)
        return live.record

    async def held_of(self, key: RequestKey) -> KeptRecord | None:
        """The adaptation that a request made, if it is in memory; counts as use.

        Others are not looked for: the store would be asked for every new request, which costs as much as writing, and
        `keep` finds them where somebody does repeat a request from before a restart.
        """
        live = self._live.made_by(key)
        if live is None or live.expires_ns <= self._now():
            return None
        if not await self._is_current(live):
            self._live.drop(live.record.id)
            return None
        self._postpone(live)
        return KeptRecord(live.record, live.expires_ns)

    async def made_by(self, key: RequestKey) -> KeptRecord | None:
        """The adaptation that a request made, if it is still kept; counts as use."""
        try:
            summary = await self._store.made_by(key.owner, key.request_id)
            if summary is None:
                return None
            kept = self._open(summary)
        except (AdaptationDamagedError, DamagedError):
            return None
        if self._expiry_of(summary) <= self._now():
            return None
        live = self._live.get(summary.id)
        if live is not None:
            self._postpone(live)
            return KeptRecord(kept.record, live.expires_ns)
        expires_ns = kept.record.expiry(self._now())
        self._touched[summary.id] = _stored_expiry(kept.record, expires_ns)
        return KeptRecord(kept.record, expires_ns)

    async def list(self, owner: str, model: str, before_ns: int | None, limit: int) -> Sequence[KeptRecord]:
        """The owner's adaptations, newest first; damaged ones are left out.

        Args:
            owner: whose.
            model: only those of this model, unless empty.
            before_ns: only those created before; unlike a position, it stays right when others are added.
            limit: at most this many.
        """
        found: list[KeptRecord] = []
        now = self._now()
        while len(found) < limit:
            summaries = await self._store.list(owner, model, before_ns, now, limit - len(found))
            if not summaries:
                break
            before_ns = summaries[-1].created_ns
            found += filter(None, map(self._listed, summaries))
        return found

    async def delete(self, owner: str, adaptation_id: str) -> KeptRecord:
        """Forget the owner's adaptation; returns what it was. Raises what `fetch` raises.

        A damaged one is forgotten, too, although the error says that it is damaged.
        """
        try:
            kept = await self.look(owner, adaptation_id)
        except AdaptationDamagedError:
            with suppress(DamagedError):  # then nobody knows whose it is
                summary = await self._store.look(adaptation_id)
                if summary is not None and summary.owner == owner:
                    await self._store.delete(adaptation_id)
            raise
        there = await self._store.delete(adaptation_id)
        self._live.drop(adaptation_id)
        self._departed.delete(adaptation_id, owner)
        if not there:
            raise self._gone(owner, adaptation_id)
        return kept

    async def drop_model(self, model: LoadedModel) -> None:
        """Free all task states of a model; adaptations that no store can bring back are gone then."""
        for dropped in self._live.drop_model(model):
            if not dropped.durable:
                self._departed.drop(dropped.record.id, dropped.record.owner)
                self._metrics.adaptation_evicted(model.name)
                await self._store.delete(dropped.record.id)

    async def sweep(self) -> None:
        """Tell the store of uses, and drop what has expired. Nothing happens while the store is away."""
        touched, self._touched = self._touched, {}
        try:
            if touched:
                await self._store.touch(touched)
            while await self._expire() == EXPIRED_AT_ONCE:
                pass
        except StoreUnavailableError:
            for adaptation_id, expires_ns in touched.items():
                self._touched.setdefault(adaptation_id, expires_ns)

    async def _expire(self) -> int:
        """Drop the adaptations that expired first, at most so many as one write shall remove; returns their number."""
        expired = await self._store.expire(self._now(), EXPIRED_AT_ONCE)
        for summary in expired:
            self._live.drop(summary.id)
            self._departed.drop(summary.id, summary.owner)
            self._metrics.adaptation_expired(summary.model)
        return len(expired)

    async def close(self) -> None:
        """Tell the store what it does not know yet, and close it."""
        if self._replacing:
            await asyncio.wait(self._replacing)
        try:
            if self._touched:
                await self._store.touch(self._touched)
        except StoreUnavailableError:
            structlog.get_logger().warning("uses of adaptations not noted", adaptations=len(self._touched))
        await self._store.close()

    async def _add(
        self, record: AdaptationRecord, expires_ns: int, state: bytes, recipe: bytes, most: int | None
    ) -> KeptRecord | None:
        """Add a record to the store, unless the request that it is of has made another, which is returned then."""
        summary = _summary(record, expires_ns)
        while True:
            made = await self._store.add(StoredAdaptation(summary, state, recipe), most)
            if made is None:
                return None
            with suppress(AdaptationDamagedError):
                kept = self._open(made)
                if self._expiry_of(made) > self._now():
                    return kept
            await self._store.delete(made.id)  # nobody can use it any more

    def _expiry_of(self, summary: Summary) -> int:
        """When an adaptation expires: memory knows best, if it is there."""
        live = self._live.peek(summary.id)
        return summary.expires_ns if live is None else live.expires_ns

    async def _hold(self, live: LiveAdaptation) -> None:
        """Hold an adaptation in memory, in the place of its revision before: nobody finds neither of them."""
        self._live.drop(live.record.id)
        given_way = self._live.make_room(live.record.owner, live.state.size_bytes)
        self._live.put(live)
        await self._bury(given_way)

    def _up_to_date(self, live: LiveAdaptation) -> bool:
        """Whether an adaptation in memory is what the store keeps, for all that this server knows without asking."""
        return live.sure and not self._store.shared

    async def _is_current(self, live: LiveAdaptation) -> bool:
        """Whether an adaptation in memory is what the store keeps; while the store can't be asked, it is."""
        if self._up_to_date(live):
            return True
        try:
            async with asyncio.timeout(ASKED_SECONDS):
                live.sure = await self._store.revision(live.record.id) == live.record.revision
                return live.sure
        except (StoreUnavailableError, TimeoutError):
            return True
        except DamagedError:  # which fetching it will say
            return False

    def _postpone(self, live: LiveAdaptation) -> None:
        live.expires_ns = live.record.expiry(self._now())
        if live.expires_ns > live.stored_expiry_ns:
            live.stored_expiry_ns = _stored_expiry(live.record, live.expires_ns)
            self._touched[live.record.id] = live.stored_expiry_ns

    def _check(self, owner: str, record: AdaptationRecord, expires_ns: int) -> None:
        if record.owner != owner:
            raise AdaptationNotFoundError
        if expires_ns <= self._now():
            raise AdaptationEvictedError

    def _open_for(self, owner: str, summary: Summary) -> KeptRecord:
        """The record of a summary, if it is the owner's and has not expired. Raises what `fetch` raises."""
        if summary.owner != owner:
            raise AdaptationNotFoundError
        kept = KeptRecord(self._open(summary).record, self._expiry_of(summary))
        self._check(owner, kept.record, kept.expires_ns)
        return kept

    def _open(self, summary: Summary) -> KeptRecord:
        """The record of a summary. Raises AdaptationDamagedError."""
        try:
            record = unseal_record(summary.id, summary.record)
            if (record.owner, record.revision) != (summary.owner, summary.revision):
                raise DamagedError(Part.RECORD)
        except DamagedError as damage:
            raise self._damaged(summary.id, damage) from damage
        return KeptRecord(record, summary.expires_ns)

    def _listed(self, summary: Summary) -> KeptRecord | None:
        try:
            kept = self._open(summary)
        except AdaptationDamagedError:
            return None
        expires_ns = self._expiry_of(summary)
        return KeptRecord(kept.record, expires_ns) if expires_ns > self._now() else None

    def _damaged(self, adaptation_id: str, damage: DamagedError) -> AdaptationDamagedError:
        self._metrics.adaptation_damaged()
        structlog.get_logger().error("damaged adaptation", adaptation=adaptation_id, part=damage.part)
        return AdaptationDamagedError()

    def _gone(self, owner: str, adaptation_id: str) -> AdaptationEvictedError | AdaptationNotFoundError:
        self._live.drop(adaptation_id)
        dropped = self._departed.was_dropped(adaptation_id, owner)
        return AdaptationEvictedError() if dropped else AdaptationNotFoundError()


def _summary(record: AdaptationRecord, expires_ns: int) -> Summary:
    return Summary(
        record.id,
        record.owner,
        record.model,
        record.revision,
        record.created_ns,
        expires_ns,
        record.request_id,
        seal_record(record),
    )


def _stored_expiry(record: AdaptationRecord, expires_ns: int) -> int:
    """The expiry that a store is told: somewhat later, so that it need not hear of every use."""
    return NEVER if expires_ns == NEVER else expires_ns + int(record.time_to_live * 1e9) // EXPIRY_SHARE

"""Moves adaptations to other versions of their models: on use, or all of a model's in the background."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

import structlog

from innerloop_server.adaptations.fetched import Fetched
from innerloop_server.adaptations.keeper import Keeper
from innerloop_server.adaptations.live import LiveAdaptation
from innerloop_server.adaptations.record import AdaptationRecord
from innerloop_server.domain.callers import Caller
from innerloop_server.domain.deadline import Deadline
from innerloop_server.domain.errors import (
    AdaptationEvictedError,
    AdaptationNotFoundError,
    ModelRetiredError,
    OverloadedError,
    ServerError,
    StoreUnavailableError,
)
from innerloop_server.domain.migrations import Migration, MigrationState
from innerloop_server.domain.model_versions import SEPARATOR, STABLE, ModelVersions
from innerloop_server.domain.models import ModelState
from innerloop_server.domain.tasks import AdaptTask
from innerloop_server.domain.timings import Timings
from innerloop_server.engine.interface import AdaptedTask, LoadedModel
from innerloop_server.models.repository import ModelRepository
from innerloop_server.observability.metrics import Metrics
from innerloop_server.serving.remaking import UnfitError, next_revision, remake_task

T = TypeVar("T")

PAGE = 64
"""Adaptations that are asked of the store at a time."""

TURN_SECONDS = 0.02
"""Seconds of the device that a migration takes at a time: others wait for it no longer, unless one adaptation does."""

MOST_AT_ONCE = 64
"""Most adaptations of one turn, however quick they are."""

LOOK_SECONDS = 0.005
"""Seconds between two looks whether the device is free."""

PATIENCE_SECONDS = 1.0
"""Seconds after which a migration takes a turn although the device is never free, so that it ends one day."""

RETRY_SECONDS = 1.0
"""Seconds until a migration goes on that the store, or the queue, had no room for."""

ACCOUNT = "migration"
"""Whose share of the device's time migrations use, whoever's adaptations they move."""

Adapt = Callable[[Caller, LoadedModel, AdaptTask, Deadline, Timings], Awaitable[AdaptedTask]]
"""Computes a task when the caller's turn comes."""


class Migrator:
    """Makes adaptations again that other versions of their models made.

    The new revision takes the place of the old one only if that has not been changed meanwhile, by this server or by
    another one of the same store. So none is lost, and whoever predicts uses the one or the other.

    Args:
        repository: has the models.
        keeper: has the adaptations.
        adapt: computes.
        busy: whether the device has others to compute for.
        metrics: told about adaptations that were moved.
        automatic: whether adaptations follow `stable` by themselves.
    """

    def __init__(
        self,
        repository: ModelRepository,
        keeper: Keeper,
        adapt: Adapt,
        busy: Callable[[], bool],
        metrics: Metrics,
        *,
        automatic: bool,
    ) -> None:
        self._repository = repository
        self._keeper = keeper
        self._adapt = adapt
        self._busy = busy
        self._metrics = metrics
        self._automatic = automatic
        self._progress: dict[str, Migration] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._by_itself: set[str] = set()  # models whose latest migration nobody asked for
        self._followed: dict[str, tuple[str, frozenset[str]]] = {}  # model -> digest of `stable`, and of all aliases
        self._log = structlog.get_logger()

    async def remake(self, caller: Caller, fetched: Fetched, deadline: Deadline) -> LiveAdaptation | None:
        """The adaptation of a version that is gone, made again on the one that the model's name means for its caller.

        Returns:
            the new revision, in memory; None if another change came first.

        Raises:
            ModelRetiredError: it can't be made again.
            ModelNotFoundError, ModelLoadingError, ModelFailedError: no version serves.
        """
        name = fetched.kept.record.model
        model = self._repository.get(name, caller.account)
        try:
            return await self._move(caller, fetched, model, deadline, Timings(), hold=True)
        except UnfitError as unfit:
            self._metrics.adaptation_migrated(name, "failed")
            self._log.warning("adaptation not moved", adaptation=fetched.kept.record.id, reason=str(unfit))
            raise ModelRetiredError(name) from unfit

    def start(self, name: str, selector: str, *, automatic: bool = False) -> Migration:
        """Move a model's adaptations to a version in the background, unless that is under way.

        Args:
            name: of the model.
            selector: of the version; empty for `stable`.
            automatic: whether those stay where they are whose version an alias points to.

        Raises:
            ModelNotFoundError, ModelLoadingError, ModelFailedError: the version does not serve.
        """
        target = self._repository.get(f"{name}{SEPARATOR}{selector or STABLE}")
        label = self._repository.versions(name).select(target.description.digest, "").label
        known = self._progress.get(name)
        running, asked_for = self._running.get(name), name not in self._by_itself
        if running is not None and known is not None and asked_for and (automatic or known.version == label):
            return known
        if running is not None:
            running.cancel()
        (self._by_itself.add if automatic else self._by_itself.discard)(name)
        self._progress[name] = Migration(name, label, MigrationState.RUNNING)
        task = asyncio.get_running_loop().create_task(self._migrate(name, target, running, automatic=automatic))
        self._running[name] = task
        task.add_done_callback(lambda ended: self._ended(name, ended))
        return self._progress[name]

    def progress(self, name: str) -> Migration:
        """How far the latest migration of a model is."""
        return self._progress.get(name, Migration(name))

    async def model_changed(self, model: ModelVersions) -> None:
        """Have adaptations follow `stable`, if that is wanted. See ModelListener."""
        stable = model.stable
        if not self._automatic or stable.state is not ModelState.READY:
            return
        followed = stable.digest, frozenset(entry.digest for entry in model.versions if model.points_to(entry))
        if self._followed.get(model.name) != followed:
            self._followed[model.name] = followed
            self.start(model.name, "", automatic=True)

    async def model_removed(self, name: str) -> None:
        """See ModelListener."""
        self._followed.pop(name, None)

    async def stop(self) -> None:
        """End all migrations; what they have not moved stays where it is."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _ended(self, name: str, task: "asyncio.Task[None]") -> None:
        if self._running.get(name) is task:
            del self._running[name]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("migration failed", model=name, exc_info=error)
            self._note(name, state=MigrationState.STOPPED, error="the server's operator finds the cause in its log")

    async def _migrate(
        self, name: str, target: LoadedModel, before: "asyncio.Task[None] | None", *, automatic: bool
    ) -> None:
        if before is not None:
            await asyncio.wait([before])
        self._log.info("migration begins", model=name, version=target.description.version)
        self._note(name, stored=await self._persistently(self._keeper.count))
        cursor, at_once, begun = "", 1, False
        while cursor or not begun:
            begun = True
            page, cursor = await self._persistently(lambda: self._keeper.scan(name, cursor, PAGE))  # noqa: B023
            self._note(name, examined=self.progress(name).examined + len(page))
            waiting = [record for record in page if self._moves(record, target, automatic=automatic)]
            while waiting:
                if not self._repository.serves(target):
                    why = "the version was unloaded or replaced"
                    self._note(name, state=MigrationState.STOPPED, error=why)
                    self._log.warning("migration stopped", model=name, reason=why)
                    return
                await self._wait_for_the_device()
                turn, waiting = waiting[:at_once], waiting[at_once:]
                seconds = max(await asyncio.gather(*(self._move_one(record, target) for record in turn)))
                at_once = next_turn(len(turn), seconds)
        self._note(name, state=MigrationState.DONE)
        ended = self.progress(name)
        self._log.info(
            "migration ended",
            model=name,
            version=ended.version,
            migrated=ended.migrated,
            failed=ended.failed,
            without_recipe=ended.without_recipe,
        )

    def _moves(self, record: AdaptationRecord, target: LoadedModel, *, automatic: bool) -> bool:
        """Whether an adaptation is to be moved."""
        if record.model_digest == target.description.digest:
            return False
        model = self._repository.versions(record.model) if automatic else None
        made_by = None if model is None else [each for each in model.versions if each.digest == record.model_digest]
        return not made_by or model is None or not any(map(model.points_to, made_by))

    async def _wait_for_the_device(self) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while self._busy() and time.monotonic() < until:
            await asyncio.sleep(LOOK_SECONDS)

    async def _move_one(self, record: AdaptationRecord, target: LoadedModel) -> float:
        """Move an adaptation in the background; returns the seconds that the device took."""
        name, timings, outcome = record.model, Timings(), ""
        while not outcome:
            try:
                outcome = await self._outcome(record, target, timings)
            except (AdaptationNotFoundError, AdaptationEvictedError):
                return timings.adapt + timings.encoder  # gone meanwhile
            except (StoreUnavailableError, OverloadedError):
                await asyncio.sleep(RETRY_SECONDS)
            except (ServerError, UnfitError) as error:
                self._log.warning("adaptation not moved", adaptation=record.id, reason=str(error))
                outcome = "failed"
            except Exception:  # what is wrong with one must not keep the others from being moved
                self._log.exception("adaptation not moved", adaptation=record.id)
                outcome = "failed"
        if outcome != "migrated":  # which is counted where it happens
            self._metrics.adaptation_migrated(name, outcome)
        self._note(name, **{outcome: getattr(self.progress(name), outcome) + 1})
        return timings.adapt + timings.encoder

    async def _outcome(self, record: AdaptationRecord, target: LoadedModel, timings: Timings) -> str:
        while True:
            fetched = await self._keeper.fetch(record.owner, record.id)
            if fetched.kept.record.model_digest == target.description.digest:
                return "migrated"  # by its use, or by another server
            if fetched.recipe is None:
                return "without_recipe"
            caller = Caller(record.owner, ACCOUNT)
            if await self._move(caller, fetched, target, Deadline(), timings, hold=False) is not None:
                return "migrated"

    async def _move(
        self, caller: Caller, fetched: Fetched, model: LoadedModel, deadline: Deadline, timings: Timings, *, hold: bool
    ) -> LiveAdaptation | None:
        """Make an adaptation again and put it in its place; None if another change came first."""
        if fetched.recipe is None:
            raise UnfitError("its examples were not kept")
        task = remake_task(model.served, fetched.recipe, fetched.kept.record.classes)
        adapted = await self._adapt(caller, model, task, deadline, timings)
        record = next_revision(fetched.kept.record, task, adapted)
        live = await self._keeper.replace(fetched.kept, record, model, adapted.state, task, hold=hold)
        if live is not None:
            self._metrics.adaptation_migrated(model.name, "migrated")
        return live

    async def _persistently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The store's answer, as soon as there is one."""
        while True:
            with suppress(StoreUnavailableError):
                return await ask()
            await asyncio.sleep(RETRY_SECONDS)

    def _note(self, name: str, **changes: object) -> None:
        self._progress[name] = replace(self._progress[name], **changes)  # type: ignore[arg-type]


def next_turn(size: int, seconds: float) -> int:
    """How many adaptations the next turn moves, if one of so many took so long.

    >>> next_turn(1, 0.001), next_turn(20, 0.04), next_turn(1, 0.5), next_turn(64, 0.0)
    (2, 10, 1, 64)
    """
    fitting = int(size * TURN_SECONDS / seconds) if seconds else MOST_AT_ONCE
    return max(1, min(fitting, 2 * size, MOST_AT_ONCE))

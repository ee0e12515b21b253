"""Carries out changes of the examples of adaptations, one after the other."""

import asyncio
from collections.abc import Awaitable, Callable
from weakref import WeakValueDictionary

from msgspec import structs

from innerloop_server.adaptations.fetched import Fetched
from innerloop_server.adaptations.flights import Flights, check_fingerprint
from innerloop_server.adaptations.keeper import Keeper
from innerloop_server.adaptations.live import LiveAdaptation
from innerloop_server.adaptations.record import UPDATES_KNOWN, AdaptationRecord, AppliedUpdate, KeptRecord, key_of
from innerloop_server.domain.callers import Caller
from innerloop_server.domain.deadline import Deadline
from innerloop_server.domain.errors import (
    ExamplesNotKeptError,
    ModelRetiredError,
    RevisionChangedError,
)
from innerloop_server.domain.examples import LabelledExamples, number_more_classes
from innerloop_server.domain.tasks import AdaptTask, ExampleIds, SupportSet
from innerloop_server.domain.timings import Timings
from innerloop_server.domain.updates import UpdateResult, UpdateTask
from innerloop_server.engine.interface import AdaptedTask, LoadedModel, StateMismatchError
from innerloop_server.models.repository import ModelRepository
from innerloop_server.observability.metrics import Metrics
from innerloop_server.serving.changed_examples import changed_examples, check_classes, check_examples
from innerloop_server.serving.remaking import UnfitError, check_fits, next_revision, task_of

Adapt = Callable[[Caller, LoadedModel, AdaptTask, Deadline, Timings], Awaitable[AdaptedTask]]
"""Computes a task when the caller's turn comes."""

Live = Callable[[Caller, str, Deadline], Awaitable[LiveAdaptation]]
"""The caller's adaptation of an id, its state in memory."""

Extend = Callable[[Caller, LiveAdaptation, SupportSet, int, Deadline, Timings], Awaitable[AdaptedTask]]
"""Learns more examples into the state of an adaptation, with so many steps, when the caller's turn comes."""

Done = tuple[KeptRecord, AppliedUpdate]
"""An adaptation, and the update that has led to it or was carried out before."""


class Updater:
    """Has adaptations learn from other examples, under their ids.

    The new revision takes the place of the one that it was made from only if that is still the one that is kept, and is
    made again from what is there otherwise. So of updates that come at once, on whichever servers of a store, none is
    lost; those of this server wait for each other, so that none is computed in vain.

    Args:
        repository: has the models.
        keeper: has the adaptations.
        adapt: computes.
        live: brings states back to memory.
        extend: computes where the examples before are not needed.
        metrics: told about adaptations that were updated.
        moves: whether an adaptation whose version is gone may move to another one.
    """

    def __init__(
        self,
        repository: ModelRepository,
        keeper: Keeper,
        adapt: Adapt,
        live: Live,
        extend: Extend,
        metrics: Metrics,
        *,
        moves: bool,
    ) -> None:
        self._repository = repository
        self._keeper = keeper
        self._adapt = adapt
        self._live = live
        self._extend = extend
        self._metrics = metrics
        self._moves = moves
        self._flights: Flights[Done] = Flights()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def update(self, caller: Caller, task: UpdateTask, deadline: Deadline) -> UpdateResult:
        """Change the examples of the caller's adaptation; see `Serving.update`."""
        timings, options = Timings(), task.options

        async def update(shared: Deadline) -> Done:
            turn = self._turns.setdefault(task.adaptation_id, asyncio.Lock())
            async with turn:
                return await self._update(caller, task, shared, timings)

        if options.request_id:
            key = caller.owner, task.adaptation_id, options.request_id
            kept, applied = await self._flights.join(key, options.fingerprint, deadline, update)
            check_fingerprint(applied.fingerprint, options.fingerprint)
        else:
            kept, applied = await update(deadline)
        return UpdateResult(kept.describe(), applied.example_ids, timings)

    async def _update(self, caller: Caller, task: UpdateTask, deadline: Deadline, timings: Timings) -> Done:
        while True:
            self._keeper.admit()
            fetched = await self._keeper.fetch(caller.owner, task.adaptation_id)
            record = fetched.kept.record
            if task.options.request_id and (applied := record.applied(task.options.request_id)) is not None:
                return fetched.kept, applied
            if task.options.expected_revision not in (0, record.revision):
                raise RevisionChangedError(task.options.expected_revision, record.revision)
            change = self._learn_more if self._learns_more(caller, fetched, task) else self._adapt_again
            done = await change(caller, fetched, task, deadline, timings)
            if done is not None:
                return done

    def _learns_more(self, caller: Caller, fetched: Fetched, task: UpdateTask) -> bool:
        """Whether an update is to be done without the examples before, because they are not kept, or will not be."""
        record, update = fetched.kept.record, task.update
        if not update.edits.only_adds or not self._model_of(caller, record).description.traits.extends:
            return False
        if fetched.recipe is None:
            return True
        size = fetched.recipe.size_bytes + update.x.nbytes + update.targets.nbytes
        return size > self._keeper.parts.recipe_bytes

    async def _learn_more(
        self, caller: Caller, fetched: Fetched, task: UpdateTask, deadline: Deadline, timings: Timings
    ) -> Done | None:
        """Make the next revision from the state and the new examples; None if another change came first."""
        before, update = fetched.kept.record, task.update
        live = await self._live(caller, before.id, deadline)
        if live.record.revision != before.revision:
            return None
        description = live.model.description
        live.model.served.check_format(task.model.description.input_format)
        y, classes = update.targets, before.classes
        if classes:
            in_order = description.traits.order_matters
            y, classes = number_more_classes(update.edits.labels, before.classes, in_order=in_order)
            check_classes(classes, description)
        support = SupportSet(update.x, y, len(classes))
        try:
            adapted = await self._extend(caller, live, support, before.steps, deadline, timings)
        except StateMismatchError as error:
            raise ExamplesNotKeptError from error
        next_id = (before.next_id or before.support_size) + support.size
        record = structs.replace(
            before,
            revision=before.revision + 1,
            classes=classes,
            support_size=before.support_size + support.size,
            losses=adapted.losses,
            example_weights=adapted.weights,
            size_bytes=adapted.state.size_bytes,
            next_id=next_id,
        )
        return await self._replace(fetched.kept, record, live.model, adapted, None, task, ExampleIds((), next_id))

    async def _adapt_again(
        self, caller: Caller, fetched: Fetched, task: UpdateTask, deadline: Deadline, timings: Timings
    ) -> Done | None:
        """Make the next revision from all of its examples; None if another change came first."""
        before = fetched.kept.record
        model = self._model_of(caller, before)
        model.served.check_format(task.model.description.input_format)
        examples = self._changed(fetched, task, model)
        check_examples(examples, model.description, task.options.most)
        adapt_task = task_of(model.served, examples, _steps(fetched, model))
        forget = before.forget_examples if before.forget_examples is not None else fetched.recipe is None
        kept = not forget and self._keeper.keeps_examples(before.id, adapt_task.support)
        if not kept and not task.update.edits.whole:
            raise ExamplesNotKeptError("with this change the examples are larger than the server keeps (recipe_bytes)")
        adapted = await self._adapt(caller, model, adapt_task, deadline, timings)
        record = structs.replace(
            next_revision(before, adapt_task, adapted), forget_examples=forget, next_id=examples.ids.following
        )
        return await self._replace(
            fetched.kept, record, model, adapted, adapt_task if kept else None, task, examples.ids
        )

    async def _replace(
        self,
        before: KeptRecord,
        record: AdaptationRecord,
        model: LoadedModel,
        adapted: AdaptedTask,
        kept: AdaptTask | None,
        task: UpdateTask,
        ids: ExampleIds,
    ) -> Done | None:
        """Put a revision in the place of the one before, and note which request it is of."""
        self._repository.check_serves(model)
        added = len(task.update.x) if kept is not None else 0
        options = task.options
        applied = AppliedUpdate(key_of(options.request_id), options.fingerprint, ids.following - added, added)
        record = structs.replace(record, updates=(*record.updates, applied)[-UPDATES_KNOWN:])
        live = await self._keeper.replace(before, record, model, adapted.state, kept, hold=True)
        if not self._repository.serves(model):
            await self._keeper.drop_model(model)
        if live is None:
            return None
        self._metrics.adaptation_updated(model.name)
        return KeptRecord(live.record, live.expires_ns), applied

    def _model_of(self, caller: Caller, record: AdaptationRecord) -> LoadedModel:
        """The version that made an adaptation, or the one that it moves to.

        Raises:
            ModelRetiredError: it is gone, and adaptations don't move.
            ModelNotFoundError, ModelLoadingError, ModelFailedError: no version serves.
        """
        try:
            return self._repository.made_by(record.model, record.model_digest)
        except ModelRetiredError:
            if not self._moves:
                raise
            return self._repository.get(record.model, caller.account)

    def _changed(self, fetched: Fetched, task: UpdateTask, model: LoadedModel) -> LabelledExamples:
        """The examples of an adaptation after an update, for a version of its model."""
        update, record = task.update, fetched.kept.record
        if update.edits.whole:
            nothing = ExampleIds((), record.next_id or record.support_size)
            return changed_examples(LabelledExamples(update.x[:0], (), update.targets[:0], nothing), update)
        if fetched.recipe is None:
            raise ExamplesNotKeptError
        try:
            check_fits(model.served, fetched.recipe, record.classes)
        except UnfitError as unfit:
            raise ModelRetiredError(record.model) from unfit
        return changed_examples(fetched.recipe.examples(record.classes), update)


def _steps(fetched: Fetched, model: LoadedModel) -> int | None:
    """The inner steps that the owner of an adaptation chose; None for the model's usual number."""
    recipe, record = fetched.recipe, fetched.kept.record
    if recipe is not None:
        return recipe.steps if recipe.steps_chosen else None
    return record.steps if record.steps != model.description.traits.default_steps else None

"""Answers callers in the process that computes."""

from dataclasses import replace
from typing import TypeVar

import numpy as np

from innerloop_server.adaptations.flights import Flights, check_fingerprint
from innerloop_server.adaptations.keeper import Keeper
from innerloop_server.adaptations.live import LiveAdaptation
from innerloop_server.adaptations.recipe import Recipe
from innerloop_server.adaptations.record import AdaptationRecord, KeptRecord
from innerloop_server.domain.adaptations import Adaptation, KeepOptions, RequestKey
from innerloop_server.domain.answers import Answers, join_answers, split_answers
from innerloop_server.domain.callers import Caller
from innerloop_server.domain.deadline import Deadline
from innerloop_server.domain.errors import (
    DivergedError,
    ExamplesNotKeptError,
    ModelLoadingError,
    ModelRetiredError,
    OverloadedError,
    TooManyAdaptationsError,
)
from innerloop_server.domain.examples import ListedExamples, check_diagnosed
from innerloop_server.domain.migrations import MigratePolicy, Migration
from innerloop_server.domain.model_versions import ModelVersions, WantedAlias, split_reference
from innerloop_server.domain.models import LOADING_RETRY_SECONDS, ServedModel
from innerloop_server.domain.portable import PortableAdaptation
from innerloop_server.domain.results import AdaptPredictResult, AdaptResult, PredictResult
from innerloop_server.domain.tasks import AdaptTask, Array, Parts, PredictTask, SupportSet
from innerloop_server.domain.timings import Timings
from innerloop_server.domain.updates import UpdateResult, UpdateTask
from innerloop_server.engine.interface import AdaptedTask, LoadedModel, NoState, TaskState
from innerloop_server.models.repository import ModelRepository
from innerloop_server.observability.metrics import Metrics
from innerloop_server.scheduling.buckets import adapt_bucket, extend_bucket, leave_out_bucket, predict_bucket
from innerloop_server.scheduling.job import AdaptJob, ExtendJob, Job, LeaveOutJob, PredictJob
from innerloop_server.scheduling.scheduler import Scheduler
from innerloop_server.serving.confidence import with_calibration
from innerloop_server.serving.diagnoser import Diagnoser, most_work, without, work_of
from innerloop_server.serving.download import check_portable, portable
from innerloop_server.serving.finite import check_finite
from innerloop_server.serving.interface import Serving
from innerloop_server.serving.migrator import Migrator
from innerloop_server.serving.rate_limits import RateLimits
from innerloop_server.serving.remaking import UnfitError, remake_task
from innerloop_server.serving.restore import Restorer
from innerloop_server.serving.updater import Updater

R = TypeVar("R")


class LocalServing(Serving):
    """Adapts, predicts and keeps adaptations, over a scheduler, a keeper and a repository, within callers' limits.

    Attributes:
        migrator: moves adaptations to other versions of their models.
    """

    def __init__(
        self,
        repository: ModelRepository,
        scheduler: Scheduler,
        keeper: Keeper,
        metrics: Metrics,
        limits: RateLimits,
        migrate: MigratePolicy = "on-use",
    ) -> None:
        self._repository = repository
        self._scheduler = scheduler
        self._keeper = keeper
        self._metrics = metrics
        self._limits = limits
        self._flights: Flights[KeptRecord] = Flights()
        self._diagnoser = Diagnoser(self._answer_left_out, self._encode, limits.waiting)
        self._migrates = migrate != "never"
        self.migrator = Migrator(
            repository,
            keeper,
            self._adapt_alone,
            lambda: scheduler.busy,
            metrics,
            automatic=migrate == "background",
        )
        self._updater = Updater(
            repository, keeper, self._adapt_alone, self._live, self._extend, metrics, moves=self._migrates
        )
        remake = self.migrator.remake if self._migrates else None
        self._restorer = Restorer(keeper, repository.made_by, self._adapt_again, remake, metrics)
        repository.on_retired = keeper.drop_model

    async def model(self, caller: Caller, reference: str) -> ServedModel:
        """The model that a name, or NAME@VERSION, means for a caller."""
        return self._repository.get(reference, caller.account).served

    async def model_of(self, caller: Caller, adaptation_id: str) -> ServedModel:
        """The model of the caller's adaptation."""
        return self._model_of(caller, await self._keeper.known(caller.owner, adaptation_id)).served

    async def adapt(
        self, caller: Caller, task: AdaptTask, keep: KeepOptions, deadline: Deadline, *, diagnose: bool = False
    ) -> AdaptResult:
        """Adapt a model and keep the result."""
        work = work_of(self._model_for(task), task) if diagnose else 0
        self._spend(caller, task.model.name, task.support.size + work)
        timings, diagnosis = Timings(), None
        if diagnose:
            self._keeper.admit()  # before the many tasks, as well as before the one
            diagnosis = await self._diagnoser.diagnose(caller, self._model_for(task), task, deadline)
        kept, _ = await self._adapt_and_keep(caller, task, None, keep, deadline, timings)
        if kept.record.classes != task.classes:
            diagnosis = None  # this request has made it before, and places of classes would now name others
        return AdaptResult(kept.describe(), timings, diagnosis)

    async def predict(self, caller: Caller, task: PredictTask, deadline: Deadline) -> PredictResult:
        """Answer queries with an adaptation."""
        self._spend(caller, task.model.name, len(task.query))
        live = await self._live(caller, task.adaptation_id, deadline)
        live.model.served.check_format(task.model.description.input_format)
        timings = Timings()
        answers = await self._ask(caller, live, task.query, deadline, timings)
        return PredictResult(answers, live.record.classes, timings)

    async def adapt_predict(
        self, caller: Caller, task: AdaptTask, query: Array, keep: KeepOptions | None, deadline: Deadline
    ) -> AdaptPredictResult:
        """Adapt a model and answer queries with the result."""
        self._spend(caller, task.model.name, task.support.size + len(query))
        timings = Timings()
        if keep is None:
            _, answers = await self._adapt(caller, self._model_for(task), task, query, deadline, timings)
            return AdaptPredictResult(_usable(answers), None, timings)
        kept, answers = await self._adapt_and_keep(caller, task, query, keep, deadline, timings)
        if answers is None:  # a request of the same id made the adaptation
            live = await self._live(caller, kept.record.id, deadline)
            answers = await self._ask(caller, live, query, deadline, timings)
        return AdaptPredictResult(answers, kept.describe(), timings)

    async def update(self, caller: Caller, task: UpdateTask, deadline: Deadline) -> UpdateResult:
        """Change the examples of an adaptation, and have it learn from those that it has then."""
        before = await self._keeper.known(caller.owner, task.adaptation_id)
        # The earlier examples are charged only if the model must adapt to all of them again: there may be very many.
        again = not (task.update.edits.only_adds and task.model.description.traits.extends)
        self._spend(caller, task.model.name, len(task.update.x) + before.support_size * again)
        return await self._updater.update(caller, task, deadline)

    async def examples(
        self, caller: Caller, adaptation_id: str, deadline: Deadline, *, diagnose: bool = False
    ) -> ListedExamples:
        """The examples of an adaptation, without their inputs."""
        known = await self._keeper.known(caller.owner, adaptation_id)
        if diagnose:
            check_diagnosed(known.support_size, known.classes)
        # Examples that are only listed are not read, and cost nothing.
        work = most_work(self._model_of(caller, known), known.support_size) if diagnose else 0
        self._spend(caller, known.model, work)
        fetched = await self._keeper.fetch(caller.owner, adaptation_id)
        if fetched.recipe is None:
            raise ExamplesNotKeptError
        record = fetched.kept.record
        kept = fetched.recipe.examples(record.classes)
        targets = tuple(map(tuple, kept.targets.tolist())) if not kept.labels else ()
        listed = ListedExamples(kept.ids.given, kept.labels, targets, record.revision, record.model)
        if not diagnose:
            return listed
        check_diagnosed(len(kept.x), kept.labels)  # it may have grown meanwhile
        model = self._model_of(caller, record)
        try:
            task = remake_task(model.served, fetched.recipe, record.classes)
        except UnfitError as unfit:
            raise ModelRetiredError(record.model) from unfit
        diagnosis = await self._diagnoser.diagnose(caller, model, task, deadline)
        return replace(listed, diagnosis=diagnosis, classes=task.classes)

    async def download(self, caller: Caller, adaptation_id: str, deadline: Deadline) -> PortableAdaptation:
        """The caller's adaptation as files that answer without the server."""
        record = await self._keeper.known(caller.owner, adaptation_id)
        self._spend(caller, record.model, 0)
        check_portable(self._model_of(caller, record))  # before its state is brought back for nothing
        return await portable(await self._live(caller, adaptation_id, deadline))

    async def look(self, caller: Caller, adaptation_id: str) -> Adaptation:
        """The caller's adaptation."""
        return (await self._keeper.look(caller.owner, adaptation_id)).describe()

    async def adaptations(self, caller: Caller, model: str, before_ns: int | None, limit: int) -> list[Adaptation]:
        """The caller's adaptations, newest first."""
        return [kept.describe(listed=True) for kept in await self._keeper.list(caller.owner, model, before_ns, limit)]

    async def delete(self, caller: Caller, adaptation_id: str) -> Adaptation:
        """Forget the caller's adaptation."""
        return (await self._keeper.delete(caller.owner, adaptation_id)).describe()

    async def models(self) -> list[ModelVersions]:
        """All models by name."""
        return self._repository.entries()

    async def versions(self, name: str) -> ModelVersions:
        """One model."""
        return self._repository.versions(name)

    async def load(self, reference: str) -> ModelVersions:
        """Load a version of a model, or all of them."""
        await self._repository.load(reference)
        return self._repository.versions(split_reference(reference)[0])

    async def unload(self, reference: str) -> None:
        """Unload a version of a model, or all of them, and free the task states of its adaptations."""
        await self._repository.unload(reference)

    async def set_alias(self, name: str, alias: str, wanted: WantedAlias | None) -> ModelVersions:
        """Have an alias of a model point to a version, or take it away."""
        await self._repository.set_alias(name, alias, wanted)
        return self._repository.versions(name)

    async def migrate(self, name: str, selector: str) -> Migration:
        """Move a model's adaptations to a version in the background."""
        return self.migrator.start(name, selector)

    async def migration(self, name: str) -> Migration:
        """How far the latest migration of a model is."""
        return self.migrator.progress(self._repository.versions(name).name)

    async def _live(self, caller: Caller, adaptation_id: str, deadline: Deadline) -> LiveAdaptation:
        """The caller's adaptation, its state in memory."""
        live = await self._keeper.use(caller.owner, adaptation_id)
        if live is not None:
            if self._repository.serves(live.model):
                self._metrics.adaptation_found(live.model.name, "memory")
                return live
            self._keeper.let_go(live)  # its model was unloaded, replaced, or loaded again since
        return await self._restorer.restore(caller, adaptation_id, deadline)

    def _spend(self, caller: Caller, model: str, examples: int) -> None:
        """Count a request against its caller's limits; raises OverloadedError where they are reached."""
        try:
            self._limits.spend(caller, examples)
        except OverloadedError:
            self._metrics.refused(model, "owner")
            raise

    def _model_of(self, caller: Caller, record: AdaptationRecord) -> LoadedModel:
        """The version that made an adaptation, or the one that it will be moved to."""
        try:
            return self._repository.made_by(record.model, record.model_digest)
        except ModelRetiredError:
            if not self._migrates:
                raise
            return self._repository.get(record.model, caller.account)

    def _model_for(self, task: AdaptTask) -> LoadedModel:
        """The version that a task was decoded for; raises ModelLoadingError if another one serves by now."""
        try:
            return self._repository.made_by(task.model.name, task.model.description.digest)
        except ModelRetiredError as retired:
            raise ModelLoadingError(task.model.name, LOADING_RETRY_SECONDS) from retired

    async def _adapt_and_keep(
        self,
        caller: Caller,
        task: AdaptTask,
        query: Array | None,
        keep: KeepOptions,
        deadline: Deadline,
        timings: Timings,
    ) -> tuple[KeptRecord, Answers | None]:
        """The record that is kept, and the answers to the query unless an earlier request made the record."""
        answers: Answers | None = None

        async def adapt_and_keep(shared: Deadline) -> KeptRecord:
            nonlocal answers
            self._keeper.admit()
            if keep.request_id and (made := await self._keeper.held_of(key)) is not None:
                return made
            model = self._model_for(task)
            try:
                await self._keeper.admit_one_more(caller.owner, model.name, caller.limits.adaptations)
            except TooManyAdaptationsError:
                if keep.request_id and (made := await self._keeper.made_by(key)) is not None:
                    return made  # a request that is repeated makes no more
                raise
            adapted, answers = await self._adapt(caller, model, task, query, shared, timings)
            if query is not None:
                _usable(answers)
            # If the model was unloaded meanwhile, its adaptations left the memory, and no new one may come.
            self._repository.check_serves(model)
            kept = await self._keeper.keep(caller.owner, model, task, adapted, keep, caller.limits.adaptations)
            if not self._repository.serves(model):
                await self._keeper.drop_model(model)
            if (kept.record.model_digest, kept.record.revision) != (model.description.digest, 1):
                answers = None  # an earlier request made what is kept, and it has changed since then
            return kept

        key = RequestKey(caller.owner, keep.request_id)
        if not keep.request_id:
            return await adapt_and_keep(deadline), answers
        kept = await self._flights.join(key, keep.fingerprint, deadline, adapt_and_keep)
        check_fingerprint(kept.record.fingerprint, keep.fingerprint)
        return kept, answers

    async def _adapt(
        self,
        caller: Caller,
        model: LoadedModel,
        task: AdaptTask,
        query: Array | None,
        deadline: Deadline,
        timings: Timings,
    ) -> tuple[AdaptedTask, Answers | None]:
        """Adapt to a task of a caller's, and answer its queries if there are any."""
        adapted, answers = await self._adapt_uncounted(caller, model, task, query, deadline, timings)
        self._metrics.adapted(model.name, task.support.size, task.steps)
        return adapted, answers

    async def _adapt_uncounted(
        self,
        caller: Caller,
        model: LoadedModel,
        task: AdaptTask,
        query: Array | None,
        deadline: Deadline,
        timings: Timings,
        later: int = 0,
    ) -> tuple[AdaptedTask, Answers | None]:
        """Adapt and answer; so many tasks of the same size are asked for later by the same request."""
        support, apart = task.support, None
        if query is not None and len(query) > self._scheduler.queries_at_once(model):
            query, apart = None, query
        width = model.description.head_width(support.ways)
        job = AdaptJob(
            model,
            adapt_bucket(support, task.steps, width, asks=query is not None),
            support.x.nbytes + (0 if query is None else query.nbytes),
            deadline,
            caller,
            support=support,
            steps=task.steps,
            width=width,
            query=query,
        )
        job.rest = later * job.units
        adapted, answers = await self._compute(job, timings)
        if not np.isfinite(adapted.losses).all():
            raise DivergedError
        if apart is not None:
            answers = await self._predict(caller, model, adapted.state, apart, deadline, timings)
        if answers is not None:
            answers = with_calibration(answers, model, support.ways, support.size)
        return adapted, answers

    async def _answer_left_out(
        self, caller: Caller, model: LoadedModel, task: AdaptTask, parts: Parts, later: int, deadline: Deadline
    ) -> list[Answers]:
        """The answers to each part by the task without it; such tasks are not counted among those of callers."""
        support = task.support
        if not model.feature_size:
            rest, query = without(task, parts), support.x[np.concatenate(parts)]
            _, answers = await self._adapt_uncounted(caller, model, rest, query, deadline, Timings(), later)
            return [_usable(answers)]
        width = model.description.head_width(support.ways)
        job = LeaveOutJob(
            model,
            leave_out_bucket(support, parts, task.steps, width),
            support.size_bytes,
            deadline,
            caller,
            support=support,
            parts=parts,
            steps=task.steps,
            width=width,
        )
        job.rest = later * job.units
        answered = await self._compute(job, Timings())
        of_parts = split_answers(_usable(answered), [len(part) for part in parts])
        return [
            with_calibration(answers, model, support.ways, support.size - len(part))
            for answers, part in zip(of_parts, parts, strict=True)
        ]

    async def _encode(self, caller: Caller, model: LoadedModel, x: Array, deadline: Deadline) -> Array:
        """What a model's head takes: features of inputs, or these themselves where there is no encoder."""
        if model.encoder is None:
            return x
        answers = await self._predict(caller, model.encoder, NoState(), x, deadline, Timings())
        return x if answers.values is None else answers.values

    async def _adapt_alone(
        self, caller: Caller, model: LoadedModel, task: AdaptTask, deadline: Deadline, timings: Timings
    ) -> AdaptedTask:
        """Adapt to a task whose state takes the place of another, which must not be lost to one that diverged."""
        adapted, _ = await self._adapt(caller, model, task, None, deadline, timings)
        await check_finite(model, adapted.state)
        return adapted

    async def _extend(
        self,
        caller: Caller,
        live: LiveAdaptation,
        support: SupportSet,
        steps: int,
        deadline: Deadline,
        timings: Timings,
    ) -> AdaptedTask:
        """Learn more examples into the state of an adaptation."""
        model, width = live.model, live.model.description.head_width(support.ways)
        job = ExtendJob(
            model,
            extend_bucket(live.state, support, steps, width),
            support.size_bytes,
            deadline,
            caller,
            state=live.state,
            support=support,
            steps=steps,
            width=width,
        )
        extended = await self._compute(job, timings)
        if not np.isfinite(extended.losses).all():
            raise DivergedError
        await check_finite(model, extended.state)
        self._metrics.adapted(model.name, support.size, steps)
        return extended

    async def _adapt_again(self, caller: Caller, model: LoadedModel, recipe: Recipe, deadline: Deadline) -> TaskState:
        task = AdaptTask(model.served, recipe.support, (), recipe.steps)
        adapted, _ = await self._adapt(caller, model, task, None, deadline, Timings())
        return adapted.state

    async def _ask(
        self, caller: Caller, live: LiveAdaptation, query: Array, deadline: Deadline, timings: Timings
    ) -> Answers:
        """Answer queries with an adaptation in memory."""
        answers = await self._predict(caller, live.model, live.state, query, deadline, timings)
        return with_calibration(answers, live.model, len(live.record.classes), live.record.support_size)

    async def _predict(
        self,
        caller: Caller,
        model: LoadedModel,
        state: TaskState,
        query: Array,
        deadline: Deadline,
        timings: Timings,
    ) -> Answers:
        """Answer queries, many of them in parts, so that others have their turns between."""
        answers, at_once = [], self._scheduler.queries_at_once(model)
        for start in range(0, len(query), at_once):
            part = query[start : start + at_once]
            bucket = predict_bucket(state, part)
            job = PredictJob(model, bucket, part.nbytes, deadline, caller, state=state, query=part)
            job.rest = len(query) - start - len(part)
            answered = await self._compute(job, timings)
            answers.append(_usable(answered))
        return answers[0] if len(answers) == 1 else join_answers(answers)

    async def _compute(self, job: Job[R], timings: Timings) -> R:
        computed = await self._scheduler.run(job)
        timings.add(computed.queue_seconds, computed.encoder_seconds, computed.seconds)
        return computed.value


def _usable(answers: Answers | None) -> Answers:
    if answers is None or not answers.finite:
        raise DivergedError
    return answers

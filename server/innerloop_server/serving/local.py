"""Answers callers in the process that computes."""

import numpy as np

from innerloop_server.adaptations.adaptation import Adaptation, AdaptationDescription, Learned, RequestKey
from innerloop_server.adaptations.flights import Flights, check_fingerprint
from innerloop_server.adaptations.store import AdaptationStore
from innerloop_server.domain.errors import DivergedError, ModelNotFoundError
from innerloop_server.engine.interface import Answers, Array
from innerloop_server.models.model import Model, ModelEntry, ServedModel
from innerloop_server.models.repository import ModelRepository
from innerloop_server.observability.metrics import Metrics
from innerloop_server.scheduling.buckets import adapt_bucket, predict_bucket
from innerloop_server.scheduling.job import AdaptJob, Deadline, PredictJob
from innerloop_server.scheduling.scheduler import Scheduler
from innerloop_server.serving.interface import (
    AdaptPredicted,
    AdaptTask,
    Keeping,
    Kept,
    Predicted,
    PredictTask,
    Serving,
    Timings,
)


class LocalServing(Serving):
    """Adapts, predicts and keeps adaptations, over a scheduler, a store and a repository."""

    def __init__(
        self, repository: ModelRepository, scheduler: Scheduler, store: AdaptationStore, metrics: Metrics
    ) -> None:
        self._repository = repository
        self._scheduler = scheduler
        self._store = store
        self._metrics = metrics
        self._flights = Flights()

    async def model(self, name: str) -> ServedModel:
        """The model of that name."""
        return self._repository.get(name).served

    async def model_of(self, owner: str, adaptation_id: str) -> ServedModel:
        """The model of the owner's adaptation."""
        return self._store.look(owner, adaptation_id).learned.model.served

    async def adapt(self, task: AdaptTask, keeping: Keeping, deadline: Deadline) -> Kept:
        """Adapt a model and keep the result."""
        timings = Timings()
        adaptation, _ = await self._adapt(task, None, keeping, deadline, timings)
        return Kept(adaptation.describe(), timings)

    async def predict(self, task: PredictTask, deadline: Deadline) -> Predicted:
        """Answer queries with an adaptation."""
        learned = self._store.use(task.owner, task.adaptation_id).learned
        learned.model.served.check_digest(task.model.description.digest)
        timings = Timings()
        answers = await self._answer(learned, task.query, deadline, timings)
        return Predicted(answers, learned.classes, timings)

    async def adapt_predict(
        self, task: AdaptTask, query: Array, keeping: Keeping | None, deadline: Deadline
    ) -> AdaptPredicted:
        """Adapt a model and answer queries with the result."""
        timings = Timings()
        if keeping is None:
            _, answers = await self._learn(self._model_for(task), task, query, deadline, timings)
            return AdaptPredicted(_usable(answers), None, timings)
        adaptation, answers = await self._adapt(task, query, keeping, deadline, timings)
        if answers is None:  # a request of the same id made the adaptation
            answers = await self._answer(adaptation.learned, query, deadline, timings)
        return AdaptPredicted(answers, adaptation.describe(), timings)

    async def look(self, owner: str, adaptation_id: str) -> AdaptationDescription:
        """The owner's adaptation."""
        return self._store.look(owner, adaptation_id).describe()

    async def adaptations(
        self, owner: str, model: str, before_ns: int | None, limit: int
    ) -> list[AdaptationDescription]:
        """The owner's adaptations, newest first."""
        return [adaptation.describe() for adaptation in self._store.list(owner, model, before_ns, limit)]

    async def delete(self, owner: str, adaptation_id: str) -> AdaptationDescription:
        """Forget the owner's adaptation."""
        description = self._store.look(owner, adaptation_id).describe()
        self._store.delete(owner, adaptation_id)
        return description

    async def entries(self) -> list[ModelEntry]:
        """All models by name."""
        return self._repository.entries()

    async def entry(self, name: str) -> ModelEntry:
        """What is known of a model."""
        return self._repository.entry(name)

    async def load(self, name: str) -> ModelEntry:
        """Load a model."""
        model = await self._repository.load(name)
        return self._repository.entry(model.name)

    async def unload(self, name: str) -> None:
        """Unload a model and drop its adaptations."""
        model = self._repository.find(name)
        try:
            await self._repository.unload(name)
        finally:  # the caller may leave meanwhile, which must not leave adaptations of a model that is gone
            if model is not None:
                self._store.drop_model(model)

    def _model_for(self, task: AdaptTask) -> Model:
        model = self._repository.get(task.model.name)
        model.served.check_digest(task.model.description.digest)
        return model

    async def _adapt(
        self, task: AdaptTask, query: Array | None, keeping: Keeping, deadline: Deadline, timings: Timings
    ) -> tuple[Adaptation, Answers | None]:
        """What was learned and kept, and the answers to the query if it was learned here and now."""
        answers: Answers | None = None

        async def learn_and_keep(shared: Deadline) -> Adaptation:
            nonlocal answers
            model = self._model_for(task)
            learned, answers = await self._learn(model, task, query, shared, timings)
            if query is not None:
                _usable(answers)
            # The model may have been unloaded meanwhile, and its adaptations dropped: this one must not come after.
            if not self._repository.serves(model):
                raise ModelNotFoundError(model.name)
            return self._store.keep(keeping.owner, learned, keeping.time_to_live, key, keeping.fingerprint)

        key = RequestKey(keeping.owner, keeping.request_id) if keeping.request_id else None
        if key is None:
            return await learn_and_keep(deadline), answers
        made = self._store.made_by(key)
        if made is not None:
            check_fingerprint(made.fingerprint, keeping.fingerprint)
            return made, None
        return await self._flights.join(key, keeping.fingerprint, deadline, learn_and_keep), answers

    async def _learn(
        self, model: Model, task: AdaptTask, query: Array | None, deadline: Deadline, timings: Timings
    ) -> tuple[Learned, Answers | None]:
        support = task.support
        width = model.description.head_width(support.ways)
        job = AdaptJob(
            model,
            adapt_bucket(support, task.steps, width, asks=query is not None),
            support.x.nbytes + (0 if query is None else query.nbytes),
            deadline,
            support=support,
            steps=task.steps,
            width=width,
            query=query,
        )
        learnt = timings.count(await self._scheduler.run(job))
        losses = learnt.task.losses
        if not np.isfinite(losses).all():
            raise DivergedError
        self._metrics.adapted(model.name, support.size, task.steps)
        return Learned(model, task.classes, support.size, task.steps, losses, learnt.task.state), learnt.answers

    async def _answer(self, learned: Learned, query: Array, deadline: Deadline, timings: Timings) -> Answers:
        bucket = predict_bucket(learned.state, query)
        job = PredictJob(learned.model, bucket, query.nbytes, deadline, state=learned.state, query=query)
        return _usable(timings.count(await self._scheduler.run(job)))


def _usable(answers: Answers | None) -> Answers:
    if answers is None or not answers.finite:
        raise DivergedError
    return answers

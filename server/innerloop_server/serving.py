"""What the server does for its callers, free of any transport: adapt, predict, and look after adaptations."""

from dataclasses import dataclass

import numpy as np

from innerloop_server.adaptations.adaptation import Adaptation, Learned, RequestKey
from innerloop_server.adaptations.flights import Flights, check_fingerprint
from innerloop_server.adaptations.store import AdaptationStore
from innerloop_server.engine.interface import Answers, Array, SupportSet
from innerloop_server.errors import DivergedError, ModelNotFoundError
from innerloop_server.models.model import Model
from innerloop_server.models.repository import ModelRepository
from innerloop_server.observability.metrics import Metrics
from innerloop_server.scheduling.buckets import adapt_bucket, head_width, predict_bucket
from innerloop_server.scheduling.job import AdaptJob, Deadline, PredictJob
from innerloop_server.scheduling.scheduler import Scheduler


@dataclass(frozen=True, slots=True)
class AdaptTask:
    """A decoded Adapt request.

    Attributes:
        model: that shall adapt.
        support: the labelled examples.
        classes: their labels by class index; empty for regression.
        steps: inner steps.
    """

    model: Model
    support: SupportSet
    classes: tuple[str, ...]
    steps: int


@dataclass(frozen=True, slots=True)
class Keeping:
    """How an adaptation shall be kept.

    Attributes:
        owner: identity that may use it.
        time_to_live: seconds it lives unused.
        request_id: names the request, so that repeating it does not adapt twice; empty when it may.
        fingerprint: of the request's content.
    """

    owner: str
    time_to_live: float
    request_id: str = ""
    fingerprint: bytes = b""


@dataclass(slots=True)
class Timings:
    """Seconds that one call spent waiting and computing on the server."""

    queue: float = 0.0
    adapt: float = 0.0
    predict: float = 0.0


class Serving:
    """Adapts, predicts and keeps adaptations, over a scheduler, a store and a repository."""

    def __init__(
        self, repository: ModelRepository, scheduler: Scheduler, store: AdaptationStore, metrics: Metrics
    ) -> None:
        self.repository = repository
        self.store = store
        self._scheduler = scheduler
        self._metrics = metrics
        self._flights = Flights()

    async def learn(self, task: AdaptTask, deadline: Deadline, timings: Timings) -> Learned:
        """Adapt a model and keep nothing.

        Raises:
            OverloadedError, DeadlinePassedError: it was not computed.
            DivergedError: the support loss left the finite numbers.
        """
        support = task.support
        width = head_width(task.model.description, support.ways)
        job = AdaptJob(
            task.model,
            adapt_bucket(support, task.steps, width),
            support.x.nbytes,
            deadline,
            support=support,
            steps=task.steps,
            width=width,
        )
        computed = await self._scheduler.run(job)
        timings.queue += computed.queue_seconds
        timings.adapt += computed.compute_seconds
        if not np.isfinite(computed.value.losses).all():
            raise DivergedError
        self._metrics.adapted(task.model.name, support.size, task.steps)
        return Learned(task.model, task.classes, support.size, task.steps, computed.value.losses, computed.value.state)

    async def adapt(self, task: AdaptTask, keeping: Keeping, deadline: Deadline, timings: Timings) -> Adaptation:
        """Adapt a model and keep the result; a request that was made before gets what it made then.

        Raises:
            InvalidRequestError: its id was used before for something else.
            AdaptationTooLargeError: the result does not fit into memory at all.
            and what `learn` raises.
        """
        if not keeping.request_id:
            return await self._learn_and_keep(task, keeping, None, deadline, timings)
        key = RequestKey(keeping.owner, keeping.request_id)
        made = self.store.made_by(key)
        if made is not None:
            check_fingerprint(made.fingerprint, keeping.fingerprint)
            return made
        return await self._flights.join(
            key,
            keeping.fingerprint,
            deadline,
            lambda shared: self._learn_and_keep(task, keeping, key, shared, timings),
        )

    async def predict(self, learned: Learned, query: Array, deadline: Deadline, timings: Timings) -> Answers:
        """Answer queries with a learned task.

        Raises:
            OverloadedError, DeadlinePassedError: it was not computed.
            DivergedError: the answers are not numbers.
        """
        bucket = predict_bucket(learned.state, query)
        job = PredictJob(learned.model, bucket, query.nbytes, deadline, state=learned.state, query=query)
        computed = await self._scheduler.run(job)
        timings.queue += computed.queue_seconds
        timings.predict += computed.compute_seconds
        answers = computed.value
        if not answers.finite:
            raise DivergedError
        return answers

    async def unload(self, name: str) -> None:
        """Unload a model and drop its adaptations. Raises what `ModelRepository.unload` raises."""
        entry = self.repository.entry(name)
        try:
            await self.repository.unload(name)
        finally:  # the caller may leave meanwhile, which must not leave adaptations of a model that is gone
            if entry.model is not None:
                self.store.drop_model(entry.model)

    async def _learn_and_keep(
        self, task: AdaptTask, keeping: Keeping, key: RequestKey | None, deadline: Deadline, timings: Timings
    ) -> Adaptation:
        learned = await self.learn(task, deadline, timings)
        # The model may have been unloaded meanwhile, and its adaptations dropped: this one must not come after.
        if not self.repository.serves(task.model):
            raise ModelNotFoundError(task.model.name)
        return self.store.keep(keeping.owner, learned, keeping.time_to_live, key, keeping.fingerprint)

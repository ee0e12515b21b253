"""Brings task states back that have left the memory: from the store, or computed again from their recipes."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from innerloop_server.adaptations.fetched import Fetched
from innerloop_server.adaptations.flights import Flights
from innerloop_server.adaptations.keeper import Keeper
from innerloop_server.adaptations.live import LiveAdaptation
from innerloop_server.adaptations.parts import COPIED_ON_LOOP
from innerloop_server.adaptations.recipe import Recipe
from innerloop_server.domain.callers import Caller
from innerloop_server.domain.deadline import Deadline
from innerloop_server.domain.errors import (
    AdaptationDamagedError,
    AdaptationEvictedError,
    ModelRetiredError,
    OverloadedError,
)
from innerloop_server.engine.interface import LoadedModel, MemoryFullError, StateMismatchError, TaskState
from innerloop_server.observability.metrics import Metrics

MEMORY_RETRY_SECONDS = 0.2
"""Seconds after which a caller may try again whose adaptation found no room: batches that hold states end by then."""

Remake = Callable[[Caller, Fetched, Deadline], Awaitable[LiveAdaptation | None]]
"""Makes an adaptation again by another version of its model; None if that was done elsewhere meanwhile."""

Adapt = Callable[[Caller, LoadedModel, Recipe, Deadline], Awaitable[TaskState]]
"""Computes a task state from a recipe when the caller's turn comes."""


class Restorer:
    """Makes adaptations live again; callers that miss one at the same time share the work.

    Args:
        keeper: has them.
        model_of: the loaded model of a record's name and digest, or the error that there is none.
        adapt: computes a state again.
        remake: takes over where the version that made an adaptation is gone; None to raise ModelRetiredError.
        metrics: told where states came from.
    """

    def __init__(
        self,
        keeper: Keeper,
        model_of: Callable[[str, str], LoadedModel],
        adapt: Adapt,
        remake: Remake | None,
        metrics: Metrics,
    ) -> None:
        self._keeper = keeper
        self._model_of = model_of
        self._adapt = adapt
        self._remake = remake
        self._metrics = metrics
        self._flights: Flights[LiveAdaptation] = Flights()

    async def restore(self, caller: Caller, adaptation_id: str, deadline: Deadline) -> LiveAdaptation:
        """The caller's adaptation, in memory.

        Raises:
            AdaptationNotFoundError, AdaptationEvictedError: it is not kept.
            AdaptationDamagedError: what is kept of it can't be used.
            ModelNotFoundError, ModelLoadingError, ModelFailedError, ModelRetiredError: what made it does not serve.
            StoreUnavailableError: the store can't be asked now.
            OverloadedError: there is no room for it now.
        """

        async def bring_back(shared: Deadline) -> LiveAdaptation:
            while True:
                fetched = await self._keeper.fetch(caller.owner, adaptation_id)
                live = await self._bring_back(caller, fetched, shared)
                if live is not None:
                    return live

        return await self._flights.join((caller.owner, adaptation_id), b"", deadline, bring_back)

    async def _bring_back(self, caller: Caller, fetched: Fetched, deadline: Deadline) -> LiveAdaptation | None:
        """The adaptation in memory; None if another revision took its place meanwhile."""
        record = fetched.kept.record
        try:
            model = self._model_of(record.model, record.model_digest)
        except ModelRetiredError:
            if fetched.recipe is None or self._remake is None:
                raise
            return await self._remake(caller, fetched, deadline)
        await self._keeper.make_room(record.owner, record.size_bytes)
        state = await self._imported(model, fetched)
        if state is not None:
            self._metrics.adaptation_found(model.name, "store")
        elif fetched.recipe is not None:
            state = await self._adapt(caller, model, fetched.recipe, deadline)
            self._metrics.adaptation_found(model.name, "recipe")
        elif fetched.damaged or fetched.state:
            self._metrics.adaptation_damaged()
            raise AdaptationDamagedError
        else:
            raise AdaptationEvictedError
        return await self._keeper.revive(fetched, model, state)

    async def _imported(self, model: LoadedModel, fetched: Fetched) -> TaskState | None:
        """The state as it was kept; None if there is none or it can't be used."""
        record, content = fetched.kept.record, fetched.state
        if fetched.damaged:
            structlog.get_logger().error("damaged adaptation", adaptation=record.id, parts=fetched.damaged)
        if content is None:
            return None
        try:
            if model.states_on_host and len(content) <= COPIED_ON_LOOP:
                return model.import_state(content)
            return await asyncio.to_thread(model.import_state, content)
        except MemoryFullError as error:
            raise OverloadedError(MEMORY_RETRY_SECONDS) from error
        except StateMismatchError as error:  # another backend wrote it, or another version of the server
            structlog.get_logger().warning("task state not usable", adaptation=record.id, reason=str(error))
            return None

"""Refuses task states that are no numbers, before they take the place of others."""

import asyncio

from innerloop_server.adaptations.parts import COPIED_ON_LOOP
from innerloop_server.domain.errors import DivergedError, OverloadedError
from innerloop_server.engine.interface import LoadedModel, MemoryFullError, TaskState
from innerloop_server.serving.restore import MEMORY_RETRY_SECONDS


async def check_finite(model: LoadedModel, state: TaskState) -> None:
    """Refuse a task state that is not finite: methods without steps have no losses that would show it.

    Raises:
        DivergedError: it is not.
        OverloadedError: there is no room to read it now.
    """
    try:
        if model.states_on_host and state.size_bytes <= COPIED_ON_LOOP:
            finite = model.is_finite(state)
        else:
            finite = await asyncio.to_thread(model.is_finite, state)
    except MemoryFullError as error:
        raise OverloadedError(MEMORY_RETRY_SECONDS) from error
    if not finite:
        raise DivergedError

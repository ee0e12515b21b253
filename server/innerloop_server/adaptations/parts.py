"""Parts of an adaptation that a store is given beside its record."""

import asyncio
from dataclasses import dataclass
from functools import partial

from innerloop_server.adaptations.recipe import Recipe
from innerloop_server.adaptations.sealing import seal, seal_recipe
from innerloop_server.adaptations.stores.interface import Part
from innerloop_server.domain.tasks import AdaptTask, SupportSet
from innerloop_server.engine.interface import LoadedModel, TaskState

COPIED_ON_LOOP = 64 * 2**10
"""Largest task state, in bytes, that the event loop copies itself; a thread takes longer to begin."""


@dataclass(frozen=True)
class KeptParts:
    """Which parts of an adaptation a store is given.

    A recipe is kept if its owner allows it and it is no larger than `recipe_bytes`. A task state is kept unless a
    smaller recipe makes it again and it is larger than `state_bytes`.

    Attributes:
        recipe_bytes: largest recipe; zero for none.
        state_bytes: largest task state that is kept beside a smaller recipe.
    """

    recipe_bytes: int = 2**20
    state_bytes: int = 64 * 2**10

    def keeps(self, support: SupportSet) -> bool:
        """Whether a support set is small enough to be kept."""
        return support.size_bytes <= self.recipe_bytes

    async def seal(
        self, adaptation_id: str, model: LoadedModel, state: TaskState, task: AdaptTask | None
    ) -> tuple[bytes, bytes]:
        """The sealed state and recipe of an adaptation; one of them may be empty.

        Args:
            adaptation_id: of the adaptation.
            model: that adapted.
            state: the task state.
            task: that led to it; None if its support set must not be kept, or is not known.
        """
        recipe = b""
        if task is not None and self.keeps(task.support):
            recipe = seal_recipe(adaptation_id, Recipe.of(task))
            if state.size_bytes > max(self.state_bytes, task.support.size_bytes):
                return b"", recipe
        export = partial(model.export_state, state)
        on_loop = model.states_on_host and state.size_bytes <= COPIED_ON_LOOP
        content = export() if on_loop else await asyncio.to_thread(export)
        return seal(Part.STATE, adaptation_id, content), recipe

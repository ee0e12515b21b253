"""An adaptation as it comes from the store."""

from collections.abc import Sequence
from dataclasses import dataclass

from innerloop_server.adaptations.recipe import Recipe
from innerloop_server.adaptations.record import KeptRecord
from innerloop_server.adaptations.sealing import unseal, unseal_recipe
from innerloop_server.adaptations.stores.interface import DamagedError, Part, StoredAdaptation


@dataclass(frozen=True, slots=True)
class Fetched:
    """An adaptation that came from the store.

    Attributes:
        kept: its record.
        state: the task state as bytes; None where it has to be made again.
        recipe: to make it again with; None where it was not kept.
        damaged: parts that are there but can't be used.
    """

    kept: KeptRecord
    state: bytes | None
    recipe: Recipe | None
    damaged: Sequence[Part]


def open_parts(kept: KeptRecord, stored: StoredAdaptation) -> Fetched:
    """An adaptation with those of its parts that can be used."""
    state = recipe = None
    damaged: list[Part] = []
    try:
        state = unseal(Part.STATE, kept.record.id, stored.state) if stored.state else None
    except DamagedError as damage:
        damaged.append(damage.part)
    try:
        recipe = unseal_recipe(kept.record.id, stored.recipe) if stored.recipe else None
    except DamagedError as damage:
        damaged.append(damage.part)
    return Fetched(kept, state, recipe, damaged)

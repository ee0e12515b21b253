"""Which adaptations are gone, as far as this process remembers."""

from collections import OrderedDict
from typing import TypeVar

T = TypeVar("T")

MOST = 65_536
"""Number of adaptations that are remembered of each kind; the first that went are forgotten first."""


class Departed:
    """Adaptations that their owners deleted, those that were dropped without being asked, and replaced revisions."""

    def __init__(self) -> None:
        self._dropped: OrderedDict[str, str] = OrderedDict()  # id -> owner
        self._deleted: OrderedDict[str, str] = OrderedDict()
        self._replaced: OrderedDict[str, int] = OrderedDict()  # id -> revision that came

    def drop(self, adaptation_id: str, owner: str) -> None:
        """Remember an adaptation that expired or gave way, so that its owner is told so."""
        _remember(self._dropped, adaptation_id, owner)

    def delete(self, adaptation_id: str, owner: str) -> None:
        """Remember an adaptation that was deleted, so that what was fetched of it before does not come back."""
        _remember(self._deleted, adaptation_id, owner)

    def replace(self, adaptation_id: str, revision: int) -> None:
        """Remember which revision came in the place of another, so that what was fetched before does not come back."""
        _remember(self._replaced, adaptation_id, revision)

    def was_replaced(self, adaptation_id: str, revision: int) -> bool:
        """Whether a later revision of an adaptation has come."""
        return self._replaced.get(adaptation_id, 0) > revision

    def was_dropped(self, adaptation_id: str, owner: str) -> bool:
        """Whether the owner had an adaptation of that id, which was dropped."""
        return self._dropped.get(adaptation_id) == owner

    def was_deleted(self, adaptation_id: str) -> bool:
        """Whether an adaptation of that id was deleted."""
        return adaptation_id in self._deleted


def _remember(gone: OrderedDict[str, T], adaptation_id: str, value: T) -> None:
    gone[adaptation_id] = value
    if len(gone) > MOST:
        gone.popitem(last=False)

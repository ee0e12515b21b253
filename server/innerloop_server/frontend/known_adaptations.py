"""What a front end remembers of adaptations, so that it need not ask before it decodes a query."""

from collections import OrderedDict
from typing import NamedTuple

from innerloop_server.models.model import ServedModel

MOST = 65_536


class Known(NamedTuple):
    """What never changes about an adaptation: its model and its number of classes."""

    model: ServedModel
    ways: int


class KnownAdaptations:
    """The adaptations used last, by owner and id. The engine process knows whether they are still there.

    Args:
        most: how many are remembered.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._known: OrderedDict[tuple[str, str], Known] = OrderedDict()

    def get(self, owner: str, adaptation_id: str) -> Known | None:
        """What is known of the owner's adaptation; None when nothing is."""
        known = self._known.get((owner, adaptation_id))
        if known is not None:
            self._known.move_to_end((owner, adaptation_id))
        return known

    def remember(self, owner: str, adaptation_id: str, known: Known) -> None:
        """Remember the owner's adaptation, and forget the one that was used least recently."""
        self._known[owner, adaptation_id] = known
        self._known.move_to_end((owner, adaptation_id))
        if len(self._known) > self._most:
            self._known.popitem(last=False)

    def forget(self, owner: str, adaptation_id: str) -> None:
        """Forget an adaptation that is gone."""
        self._known.pop((owner, adaptation_id), None)

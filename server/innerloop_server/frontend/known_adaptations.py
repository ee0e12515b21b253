"""The facts about adaptations that a front end remembers, so that it can decode a query without asking."""

from collections import OrderedDict
from typing import NamedTuple

from innerloop_server.domain.callers import Caller
from innerloop_server.domain.models import ServedModel

MOST = 65_536


class Known(NamedTuple):
    """The facts about an adaptation that queries are decoded by: its model and its number of classes.

    Another version of the model may make it again; what was decoded is refused then if it does not fit that one.
    """

    model: ServedModel
    ways: int


class KnownAdaptations:
    """The adaptations used last, by caller and id. The engine process knows whether they are still there.

    Args:
        most: how many are remembered.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._known: OrderedDict[tuple[Caller, str], Known] = OrderedDict()

    def get(self, caller: Caller, adaptation_id: str) -> Known | None:
        """The facts about the caller's adaptation; None if they are not known."""
        known = self._known.get((caller, adaptation_id))
        if known is not None:
            self._known.move_to_end((caller, adaptation_id))
        return known

    def remember(self, caller: Caller, adaptation_id: str, known: Known) -> None:
        """Remember the caller's adaptation, and forget the one that was used least recently."""
        self._known[caller, adaptation_id] = known
        self._known.move_to_end((caller, adaptation_id))
        if len(self._known) > self._most:
            self._known.popitem(last=False)

    def forget(self, caller: Caller, adaptation_id: str) -> None:
        """Forget an adaptation that is gone."""
        self._known.pop((caller, adaptation_id), None)

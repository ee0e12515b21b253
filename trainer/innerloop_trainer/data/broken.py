"""Collects what can't be read, so that a user learns of all of it at once."""

from innerloop_trainer.data.source import DataError

MOST_NAMED = 10


class Broken:
    """What can't be read in one place.

    Args:
        place: what messages begin with, for example the path of a folder.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._found: list[str] = []

    def __len__(self) -> int:
        return len(self._found)

    def note(self, what: str) -> None:
        """Remember one thing: its name and what is wrong with it."""
        self._found.append(what)

    def refuse(self, advice: str) -> None:
        """Raise a DataError that names what was noted, if anything was.

        Args:
            advice: what the user can do.
        """
        if not self._found:
            return
        named = "; ".join(self._found[:MOST_NAMED])
        more = len(self._found) - MOST_NAMED
        raise DataError(f"{self._place}: {named}{f'; and {more:,} more' if more > 0 else ''}; {advice}")

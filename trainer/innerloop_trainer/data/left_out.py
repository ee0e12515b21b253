"""What of a user's data is not used: named at once where it is refused, counted where it is left out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePath

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


def counted(count: int, what: str) -> str:
    """A number of things, for messages.

    >>> counted(1, "file"), counted(2000, "file")
    ('1 file', '2,000 files')
    """
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def count_kinds(files: Sequence[PurePath], remarks: Mapping[str, str] | None = None) -> str:
    """How many files there are of which kind.

    Args:
        files: their paths.
        remarks: what is to be said of files of some kind, by the end of their names in lower case.

    >>> count_kinds([PurePath("a.txt"), PurePath("b.TXT"), PurePath("README")])
    '3 files (2 .txt, 1 without an extension)'
    """
    kinds = Counter(path.suffix.lower() or "without an extension" for path in files)
    remarked = {kind: f" ({remark})" for kind, remark in (remarks or {}).items()}
    said = ", ".join(f"{count:,} {kind}{remarked.get(kind, '')}" for kind, count in kinds.most_common())
    return f"{counted(len(files), 'file')} ({said})"

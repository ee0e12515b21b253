"""Names the parts of a user's data that are refused, all at once, and counts those that are left out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from innerloop_trainer.data.example_set import ExampleSet
from innerloop_trainer.data.options import FLAG, option, whole_number
from innerloop_trainer.data.source import DataError

MOST_NAMED = 10
"""Most files or rows that a message names; the others are counted."""


class Broken:
    """Collects files or rows of one place that can't be read.

    Args:
        place: beginning of messages, for example the path of a folder.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._found: list[str] = []

    def __len__(self) -> int:
        return len(self._found)

    def note(self, what: str) -> None:
        """Add one file or row: its name, and what is wrong with it."""
        self._found.append(what)

    def refuse(self, advice: str) -> None:
        """Raise a DataError that names everything noted, if anything was.

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
    """Describe how many files there are of each kind.

    Args:
        files: paths of the files.
        remarks: remarks about files of some kinds, by file extension in lower case.

    >>> count_kinds([PurePath("a.txt"), PurePath("b.TXT"), PurePath("README")])
    '3 files (2 .txt, 1 without an extension)'
    """
    kinds = Counter(path.suffix.lower() or "without an extension" for path in files)
    remarked = {kind: f" ({remark})" for kind, remark in (remarks or {}).items()}
    said = ", ".join(f"{count:,} {kind}{remarked.get(kind, '')}" for kind, count in kinds.most_common())
    return f"{counted(len(files), 'file')} ({said})"


@dataclass(frozen=True)
class LeaveOutOptions:
    """Options that allow parts of a user's data to be left out."""

    min_examples: int = option(0, whole_number(0), "Leave out classes with fewer examples than this.")
    skip_broken: bool = option(False, FLAG, "Leave out examples that can't be read, instead of refusing them.")


def leave_out_small(source: str, data: ExampleSet, options: LeaveOutOptions) -> tuple[ExampleSet, Sequence[str]]:
    """Leave out classes that are too small; returns the others, and notices about those left out.

    Args:
        source: name of the source, for messages.
        data: examples of all classes.
        options: least number of examples of a class.

    Raises:
        DataError: a class has no examples, and such classes may not be left out.
    """
    needed = max(1, options.min_examples)
    small = [name for name, count in zip(data.names, data.counts, strict=True) if count < needed]
    if not small:
        return data, ()
    named = ", ".join(small[:MOST_NAMED]) + (
        f" and {len(small) - MOST_NAMED:,} more" if len(small) > MOST_NAMED else ""
    )
    if not options.min_examples:
        raise DataError(
            f"{source}: no example of {named} can be read; add some, or leave such classes out with ?min_examples=1"
        )
    kept = data.select([name for name in data.names if name not in set(small)])
    classes = f"{len(small):,} class{'es' if len(small) > 1 else ''}"
    return kept, [f"{classes} with fewer than {needed} examples left out: {named}"]

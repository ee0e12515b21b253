"""Lists all that can be chosen by name, by what is learned and how."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from innerloop_learner.learner import MethodInfo, methods
from innerloop_trainer.catalogue.docstring import read_docstring
from innerloop_trainer.catalogue.kinds import FAMILIES, KINDS, Kind


@dataclass(frozen=True)
class Entry:
    """One line of a list.

    Attributes:
        name: registered name.
        summary: description in a sentence.
        paper: the paper that describes it; empty if none is named.
        info: what else a user chooses a method by; None for parts.
    """

    name: str
    summary: str
    paper: str
    info: MethodInfo | None = None


@dataclass(frozen=True)
class Section:
    """Things that learn, say or do the same.

    Attributes:
        kind: their kind, such as "method" or "noise".
        title: what they learn, say or do.
        chosen_by: how a command takes one; empty if none does.
        entries: the things, by name.
    """

    kind: str
    title: str
    chosen_by: str
    entries: Sequence[Entry]

    def to_json(self) -> list[dict[str, Any]]:
        """Plain data, one object for each entry."""
        return [
            {
                "kind": self.kind,
                "name": entry.name,
                "what": self.title,
                "summary": entry.summary,
                "paper": entry.paper,
                "chosen_by": self.chosen_by.replace("NAME", entry.name),
                **(asdict(entry.info) if entry.info else {}),
            }
            for entry in self.entries
        ]


def sections() -> list[Section]:
    """All that is registered: methods by what they learn, then parts by their kinds.

    >>> [section.title for section in sections()][:2]
    ['an initialisation that adapts well', 'rates, or the optimizer itself']
    """
    return [*_families(), *map(_parts, KINDS)]


def _families() -> list[Section]:
    entries: dict[str, list[Entry]] = {family: [] for family in FAMILIES}
    for name in methods:
        method = methods[name]
        entry = Entry(name, read_docstring(method).summary, method.info.paper, method.info)
        entries.setdefault(method.info.family, []).append(entry)
    return [
        Section(methods.kind, FAMILIES.get(family, family), "innerloop train NAME", members)
        for family, members in entries.items()
        if members
    ]


def _parts(kind: Kind) -> Section:
    texts = {name: read_docstring(kind.registry[name]) for name in kind.registry}
    entries = [Entry(name, text.summary, text.source) for name, text in texts.items()]
    return Section(kind.registry.kind, kind.title, kind.chosen_by, entries)

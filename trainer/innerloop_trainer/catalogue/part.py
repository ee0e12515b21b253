"""Describes a part of a method or of its training for users."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from innerloop_learner.learner import methods
from innerloop_learner.settings import Described, described
from innerloop_trainer.catalogue.docstring import read_docstring
from innerloop_trainer.catalogue.kinds import Kind
from innerloop_trainer.catalogue.method import usual_parts


@dataclass(frozen=True)
class PartDescription:
    """One part, for people.

    Attributes:
        kind: its kind, such as "noise".
        name: registered name.
        summary: description in a sentence.
        paper: the paper that describes it; empty if its docstring names none.
        explanation: paragraphs, and equations, which are indented.
        chosen_by: how a command takes it.
        set_by: how a command takes a setting of it; empty if it has none.
        settings: its settings.
        usual_for: methods that take it unless the user says otherwise.
        taken_by: methods that take it if the user says so; empty where that is no matter of the method.
    """

    kind: str
    name: str
    summary: str
    paper: str
    explanation: Sequence[str]
    chosen_by: str
    set_by: str
    settings: Sequence[Described]
    usual_for: Sequence[str]
    taken_by: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def describe_part(kind: Kind, name: str) -> PartDescription:
    """Describe a part of a kind.

    Raises:
        UnknownNameError: no part of this kind has this name.
    """
    entry, word = kind.registry[name], kind.registry.kind
    text = read_docstring(entry)
    settings = described(getattr(entry, kind.settings)) if kind.settings else []
    return PartDescription(
        kind=word,
        name=name,
        summary=text.summary,
        paper=text.source,
        explanation=text.explanation,
        chosen_by=kind.chosen_by.replace("NAME", name),
        set_by=kind.set_by.replace("NAME", name) if settings else "",
        settings=settings,
        usual_for=[method for method in methods if usual_parts(method).get(word) == name],
        taken_by=_taken_by(kind, name),
    )


def _taken_by(kind: Kind, name: str) -> list[str]:
    """Methods that take a part if the user says so; empty for "none", which goes with all."""
    if not kind.taken_by or name == "none":
        return []
    return [method for method in methods if getattr(methods[method], kind.taken_by)]

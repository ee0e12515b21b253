"""Prints methods and parts."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.padding import Padding
from rich.table import Table

from innerloop_learner.learner import MethodInfo
from innerloop_learner.settings import Described
from innerloop_trainer.catalogue import MethodDescription, PartDescription, Section
from innerloop_trainer.cli.output import console

_MARKS = "WRSOE"
"""Letters for properties of methods, explained in `_LEGEND` and set by `_marks`."""

_LEGEND = """Methods, by what they learn: innerloop train NAME
  W any number of ways           R regression too
  S gradient steps at serving    O the order of examples matters
  E takes more examples into an adaptation, without the old ones"""


def print_sections(sections: Sequence[Section]) -> None:
    """Print a line for each method and part, below what it learns, says or does."""
    console.print(_LEGEND)
    for section in sections:
        of_methods = section.kind == "method"
        chosen_by = "" if of_methods or not section.chosen_by else f": {section.chosen_by}"
        console.print(f"\n{section.title[0].upper()}{section.title[1:]}{chosen_by}", soft_wrap=True)
        table = Table.grid(padding=(0, 1, 0, 0))
        table.add_column(min_width=17, no_wrap=True)
        for entry in section.entries:
            marks = [_marks(entry.info)] if entry.info else []
            table.add_row(entry.name, *marks, entry.summary.removesuffix("."))
        console.print(Padding(table, (0, 0, 0, 2)))
    console.print("\ninnerloop methods NAME shows one with its paper, equations and settings.", soft_wrap=True)


def print_description(described: MethodDescription | PartDescription) -> None:
    """Print a method or part, and its settings with their defaults."""
    if isinstance(described, MethodDescription):
        title, rows, set_by = described.info.name, _of_method(described), "--set SETTING=VALUE"
    else:
        title, rows, set_by = f"{described.name} ({described.kind})", _of_part(described), described.set_by
    table = Table(show_header=False, title=title)
    for name, text in {"what it is": described.summary, **rows}.items():
        if text:
            table.add_row(name, text)
    console.print(table)
    for paragraph in described.explanation:
        console.print(f"\n{_joined(paragraph)}")
    console.print()
    _print_settings(described.settings, set_by)


def _of_method(method: MethodDescription) -> dict[str, str]:
    defaults = {name: value for name, value in asdict(method.training).items() if value is not None}
    return {
        "family": _traits(method.info),
        "paper": method.info.paper,
        "learns": ", ".join(method.learns),
        "trained with": ", ".join(f"{name} {value}" for name, value in defaults.items()),
    }


def _of_part(part: PartDescription) -> dict[str, str]:
    usual_for, taken_by = ", ".join(part.usual_for), ", ".join(part.taken_by)
    return {"paper": part.paper, "chosen by": part.chosen_by, "usual for": usual_for, "taken by": taken_by}


def _print_settings(settings: Sequence[Described], set_by: str) -> None:
    if not settings:
        console.print("It has no settings.")
        return
    table = Table("setting", "default", "what it is", title=set_by)
    for setting in settings:
        table.add_row(setting.name, json.dumps(setting.default), f"{setting.doc} ({setting.kind})")
    console.print(table)


def _joined(paragraph: str) -> str:
    """A paragraph of a docstring without its line breaks, which are of another width; equations stay as they are."""
    return paragraph if paragraph.startswith(" ") else " ".join(paragraph.split("\n"))


def _marks(info: MethodInfo) -> str:
    true = (
        info.ways_can_change == "any",
        "regression" in info.tasks,
        info.gradients_at_serving,
        info.order_matters,
        info.extends,
    )
    return "".join(mark if holds else " " for mark, holds in zip(_MARKS, true, strict=True))


def _traits(info: MethodInfo) -> str:
    adapts = "adapts by gradients" if info.gradients_at_serving else "adapts without gradients"
    ways = {"no": "the trained number of ways only", "fewer": "fewer ways too", "any": "any number of ways"}
    traits = [info.family, adapts, ways[info.ways_can_change], " and ".join(info.tasks)]
    traits += ["the order of examples matters"] * info.order_matters
    return "; ".join([*traits, *["can learn more examples into an adaptation"] * info.extends])

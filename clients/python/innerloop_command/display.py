"""How the client's commands show what they got: tables for people, JSON for programs."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from rich.table import Column, Table

from innerloop import Diagnosis, Migration, Model, Prediction
from innerloop_command.console import make_console, print_line


def answer(kind: str, query: str, prediction: Prediction) -> dict[str, Any]:
    """One answer as plain data: the query by its kind, the label with all probabilities, or values of a regression.

    Of calibrated models there is more: whether the query is known, variances of values, and sets or intervals that were
    asked for.
    """
    if hasattr(prediction, "values"):
        there = [name for name in ("values", "variances", "intervals") if hasattr(prediction, name)]
        return {kind: query, **{name: getattr(prediction, name).tolist() for name in there}}
    found = {
        kind: query,
        "label": prediction.label,
        "probability": prediction.probability,
        "probabilities": prediction.probabilities,
    }
    if hasattr(prediction, "known"):
        found |= {"known": prediction.known, "unknown": prediction.label_or(None) is None}
    if hasattr(prediction, "label_set"):
        found["label_set"] = prediction.label_set
    return found


def print_json(data: Any) -> None:
    """Print `data`; named tuples become objects, times ISO 8601."""
    print_line(json.dumps(_plain(data), indent=2))


def print_answers(answers: Sequence[dict[str, Any]]) -> None:
    """Print what `answer` made of several predictions, one line each."""
    kind = next(iter(answers[0]))
    rows = [_shown(answer, kind) for answer in answers]
    table = _table(*rows[0])
    for row in rows:
        table.add_row(*row.values())
    make_console().print(table)


def _shown(row: dict[str, Any], kind: str) -> dict[str, str]:
    """One answer by the heads of its columns; a query that passes for none of the classes is called unknown."""
    if "values" in row:
        shown = {kind: row[kind], "values": "  ".join(f"{value:.6g}" for value in row["values"])}
        if "intervals" in row:
            shown["intervals"] = "  ".join(f"{low:.6g} to {high:.6g}" for low, high in row["intervals"])
        return shown
    label = f"unknown ({row['label']}?)" if row.get("unknown") else row["label"]
    shown = {kind: row[kind], "label": label, "probability": f"{row['probability']:.1%}"}
    if "known" in row:
        shown["known"] = f"{row['known']:.1%}"
    if "label_set" in row:
        shown["set"] = ", ".join(row["label_set"]) or "none"
    return shown


def print_examples(listed: Sequence[dict[str, Any]]) -> None:
    """Print the examples of an adaptation, one line each."""
    kind = "target" if "target" in listed[0] else "label"
    table = _table("id", kind)
    for row in listed:
        shown = row[kind] if kind == "label" else "  ".join(f"{value:.6g}" for value in row[kind])
        table.add_row(str(row["id"]), shown)
    make_console().print(table)


def print_diagnosis(diagnosis: Diagnosis, examples: Sequence[str], labels: Sequence[str]) -> None:
    """Print on standard error what the examples say about each other's labels."""
    console = make_console(stderr=True)
    table = _table("example", "label", "looks like", "doubt")
    for place in diagnosis.doubtful():
        doubt = f"{diagnosis.doubts[place]:.0%}"
        table.add_row(examples[place], labels[place], diagnosis.likely_labels[place], doubt)
    if table.row_count:
        console.print(table)
    expected = diagnosis.expected_accuracy
    if expected is None:
        lines = ["one example of each label says nothing about labels and accuracy; give two or more"]
    else:
        found = f"{expected.value:.0%} ({expected.low:.0%} to {expected.high:.0%})"
        lines = [] if table.row_count else ["no label is doubtful"]
        lines.append(f"accuracy to expect: {found}, by leaving out each of {expected.examples} examples")
    lines += [
        f"{each.first} and {each.second} can't be told apart ({each.confusion:.0%} confused)"
        for each in diagnosis.alike
    ]
    for line in lines:
        console.print(line, soft_wrap=True)


def print_models(models: Sequence[Model]) -> None:
    """Print one entry per model."""
    table = _table("model", "state", "what it is")
    table.show_lines = True
    for model in models:
        table.add_row(model.name, model.state, "\n".join([*_description(model), *_versions(model)]))
    make_console().print(table)


@contextmanager
def migration_shown() -> Iterator[Callable[[Migration], None]]:
    """Shows on standard error how far a migration is, each time that it is told."""
    with make_console(stderr=True).status("migrating", spinner="line") as status:
        yield lambda migration: status.update(migration_result(migration))


def migration_result(migration: Migration) -> str:
    """How far a migration is, in a line."""
    counts = f"{migration.migrated:,} moved, {migration.failed:,} failed, {migration.without_recipe:,} without examples"
    why = f": {migration.error}" if migration.error else ""
    return f"{migration.model} to {migration.version or 'no version'}: {migration.state}{why}; {counts}"


def _table(*columns: str) -> Table:
    """A table in which nothing is cut, however narrow the terminal."""
    return Table(*(Column(name, overflow="fold") for name in columns))


def _description(model: Model) -> list[str]:
    """The description of a model in lines; for one that is not loaded, the reason, if that is known."""
    if model.state != "ready":
        return [model.error]
    inputs = f"{' x '.join(map(str, model.input_shape))} inputs"
    if model.input_kind == "text":
        inputs = "texts"
    elif model.input_kind == "audio":
        inputs = f"recordings, {model.input_shape[0] / model.sample_rate:.3g} s of each at {model.sample_rate:,} Hz"
    metrics = [f"{m.name} {m.value:.4g} ± {m.confidence_interval:.2g} ({m.protocol})" for m in model.metrics]
    ways = {"no": "takes that many classes only", "fewer": "takes fewer classes too", "any": "takes any classes"}
    takes = (
        [ways[model.ways_can_change]] if model.ways_can_change in ways and model.task_kind == "classification" else []
    )
    takes += ["the order of examples matters"] * model.order_matters
    takes += ["learns more without the examples before"] * model.extends
    trained_for = _trained_for(model)
    trained = "; ".join([f"trained for {trained_for}" if trained_for else "not meta-trained", *takes])
    calibrated = ["answers say how sure they are"] * model.calibrated
    return [f"{model.method}, {model.task_kind} of {inputs}", trained, *calibrated, *metrics]


def _versions(model: Model) -> list[str]:
    """The versions of a model in lines, where there are several, or folders or errors to tell."""
    names: dict[str, list[str]] = {}
    for alias in model.aliases:
        share = f" {alias.percent:g}%" if alias.percent else ""
        waits = f" (then {alias.wanted})" if alias.wanted else ""
        names.setdefault(alias.version, []).append(f"{alias.name}{share}{waits}")
    lines = []
    for version in model.versions:
        if not version.folder and not (version.error and model.state == "ready"):
            continue
        said = [version.version, version.state, ", ".join(names.get(version.folder, [])), version.error]
        lines.append(f"@{version.folder or version.version}: " + "; ".join(filter(None, said)))
    return lines


def _trained_for(model: Model) -> str:
    limits = model.limits
    sizes = {"way": limits.trained_ways, "shot": limits.trained_shots, "steps": limits.trained_steps}
    return " ".join(f"{size}-{word}" if word != "steps" else f"{size} {word}" for word, size in sizes.items() if size)


def _plain(data: Any) -> Any:
    if isinstance(data, datetime):
        return data.isoformat()
    if hasattr(data, "_asdict"):
        return _plain(data._asdict())
    if isinstance(data, dict):
        return {key: _plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(value) for value in data]
    return data

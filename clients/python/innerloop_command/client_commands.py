"""The client for the shell: adapt, update, examples, predict, download, models, delete, alias, migrate."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from innerloop.checks import listing
from innerloop.models import InputKind
from innerloop.predict_script import SCRIPT_NAME
from innerloop_command.client_options import ServerAccess, with_client_options
from innerloop_command.console import print_error, print_line
from innerloop_command.display import (
    answer,
    migration_result,
    migration_shown,
    print_answers,
    print_diagnosis,
    print_examples,
    print_json,
    print_models,
)
from innerloop_command.examples import asked_files, asked_texts, at_most, labelled_files, labelled_texts
from innerloop_command.media_folders import IMAGES, RECORDINGS

app = typer.Typer(rich_markup_mode="markdown", add_completion=False)

LOOK_SECONDS = 0.5
"""Seconds between two questions how far a migration is."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Diagnose = Annotated[
    bool,
    typer.Option(
        "--diagnose",
        help="Say which labels may be wrong, what accuracy to expect, and which labels can't be told apart, on "
        "standard error. The model adapts once more for each example.",
    ),
]


@app.command()
@with_client_options
def adapt(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    examples: Annotated[
        list[str],
        typer.Argument(
            help="A folder that has a folder of images, or of recordings, for each label; LABEL=PATH of a file or of a "
            "folder of files; for a model of texts, a CSV file with columns text and label, or LABEL=TEXT."
        ),
    ],
    shots: Annotated[
        int | None,
        typer.Option(
            min=1, help="Most examples of each label to learn from, spread over those there are. [default: all]"
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Inner-loop steps. [default: the model's]")] = None,
    time_to_live: Annotated[
        float | None,
        typer.Option(
            help="Seconds for which the server keeps the adaptation while nobody uses it, 0 for ever. "
            "[default: the server's]"
        ),
    ] = None,
    forget_examples: Annotated[
        bool, typer.Option("--forget-examples", help="Have the server keep no examples with the adaptation.")
    ] = False,
    diagnose: Diagnose = False,
    as_json: AsJson = False,
    *,
    access: ServerAccess,
) -> None:
    """Adapt a model to labelled images, recordings or texts, and print the id of the adaptation."""
    with access.connect() as client:
        description = client.model(model)
        inputs, labels = _examples(examples, description.input_kind)
        if shots:
            inputs, labels = at_most(shots, inputs, labels)
        most = description.limits.max_support
        if most and len(inputs) > most:
            few = max(1, min(5, most // len(set(labels))))
            raise typer.BadParameter(
                f"there are {len(inputs):,} examples, and the server takes {most:,} at most; --shots {few} takes {few} "
                "of each label"
            )
        info = client.adapt(
            model,
            inputs,
            labels,
            steps=steps,
            time_to_live=time_to_live,
            forget_examples=forget_examples,
            diagnose=diagnose,
        ).info
    if info.diagnosis is not None and not as_json:
        print_diagnosis(info.diagnosis, list(map(str, inputs)), labels)
    print_json(vars(info)) if as_json else print_line(info.id)


def _examples(arguments: Sequence[str], kind: InputKind) -> tuple[Sequence[Path | str], Sequence[str]]:
    """Examples of the kind that a model takes, and their labels; what is left out beside them is said."""
    if kind == "text":
        return labelled_texts(arguments)
    found = labelled_files(arguments, RECORDINGS if kind == "audio" else IMAGES)
    _say_left_out(found.left_out)
    return found.paths, found.labels


@app.command()
@with_client_options
def update(
    adaptation_id: Annotated[str, typer.Argument(help="What `innerloop adapt` printed.")],
    more: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[EXAMPLES]...",
            help="Examples to learn from as well, named as for `innerloop adapt`.",
            show_default=False,
        ),
    ] = None,
    remove: Annotated[
        list[int] | None, typer.Option(help="Id of an example to forget, see `innerloop examples`; may be repeated.")
    ] = None,
    remove_class: Annotated[
        list[str] | None, typer.Option(help="Label whose examples to forget; may be repeated.")
    ] = None,
    relabel: Annotated[
        list[str] | None, typer.Option(metavar="ID=LABEL", help="Another label for an example; may be repeated.")
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(metavar="OLD=NEW", help="Another label for a class, or that of one to join; may be repeated."),
    ] = None,
    expect_revision: Annotated[
        int | None, typer.Option(min=1, help="Change nothing if this is not the present revision.")
    ] = None,
    as_json: AsJson = False,
    *,
    access: ServerAccess,
) -> None:
    """Change what an adaptation has learned from, under its id, all of it or nothing, and print its revision."""
    if not (more or remove or remove_class or relabel or rename):
        raise typer.BadParameter("name examples to learn, or one of --remove, --remove-class, --relabel and --rename")
    labels_by_id = {_example_id(each): label for each, label in map(_halves, relabel or [])}
    renamed = dict(map(_halves, rename or []))
    with access.connect() as client:
        adaptation = client.get_adaptation(adaptation_id)
        kind = client.model(adaptation.model).input_kind if more else "tensor"
        inputs, labels = _examples(more, kind) if more else (None, None)
        adaptation.update(
            inputs,
            labels,
            remove=remove or [],
            remove_classes=remove_class or [],
            relabel=labels_by_id,
            rename=renamed,
            expected_revision=expect_revision,
        )
    print_json(vars(adaptation.info)) if as_json else print_line(str(adaptation.info.revision))


def _halves(argument: str) -> tuple[str, str]:
    """What stands before and after the first equals sign."""
    old, separator, new = argument.partition("=")
    if not separator or not old or not new:
        raise typer.BadParameter(f"{argument!r} is not of the form ID=LABEL, or OLD=NEW")
    return old, new


def _example_id(text: str) -> int:
    if not text.isdecimal():
        raise typer.BadParameter(f"{text!r} is no id of an example; `innerloop examples` lists them")
    return int(text)


@app.command()
@with_client_options
def examples(
    adaptation_id: Annotated[str, typer.Argument(help="What `innerloop adapt` printed.")],
    diagnose: Diagnose = False,
    as_json: AsJson = False,
    *,
    access: ServerAccess,
) -> None:
    """List the examples that an adaptation has learned from: the id of each, and its label or target."""
    with access.connect() as client:
        adaptation = client.get_adaptation(adaptation_id)
        found = adaptation.examples()
        diagnosis = adaptation.diagnose() if diagnose else None
    listed = [
        {"id": each.id, "label": each.label} if each.target is None else {"id": each.id, "target": each.target.tolist()}
        for each in found
    ]
    if as_json:
        print_json(listed if diagnosis is None else {"examples": listed, "diagnosis": diagnosis})
        return
    print_examples(listed)
    if diagnosis is not None:
        labels = {each.id: str(each.label) for each in found}
        print_diagnosis(diagnosis, list(map(str, diagnosis.ids)), [labels.get(each, "?") for each in diagnosis.ids])


@app.command()
@with_client_options
def predict(
    adaptation_id: Annotated[str, typer.Argument(help="What `innerloop adapt` printed.")],
    queries: Annotated[
        list[str],
        typer.Argument(
            help="Files of images or recordings, or folders of them; for a model of texts, the texts, CSV files with "
            "a column text, or .txt files with a text in each line."
        ),
    ],
    coverage: Annotated[
        float | None,
        typer.Option(
            help="Show sets of labels, or intervals, that hold the truth for this share of queries, such as 0.95; only "
            "of calibrated models."
        ),
    ] = None,
    as_json: AsJson = False,
    *,
    access: ServerAccess,
) -> None:
    """Ask an adaptation about images, recordings or texts.

    A calibrated model says of a query that looks like none of the classes that it is unknown; 5% of those that do
    belong to one are called so, too.
    """
    with access.connect() as client:
        adaptation = client.get_adaptation(adaptation_id)
        kind = client.model(adaptation.model).input_kind
        inputs = _queries(queries, kind)
        predictions = adaptation.predict(inputs, coverage=coverage)
    named = "text" if kind == "text" else "file"
    answers = [answer(named, str(query), prediction) for query, prediction in zip(inputs, predictions, strict=True)]
    print_json(answers) if as_json else print_answers(answers)


def _queries(arguments: Sequence[str], kind: InputKind) -> Sequence[Path | str]:
    """Queries of the kind that a model takes; what is left out of folders is said."""
    if kind == "text":
        return asked_texts(arguments)
    found, left_out = asked_files(arguments, RECORDINGS if kind == "audio" else IMAGES)
    _say_left_out(left_out)
    return found


def _say_left_out(left_out: list[str]) -> None:
    if left_out:
        print_error(f"innerloop: left out {len(left_out)}: {listing(left_out, ', ')}")


@app.command()
@with_client_options
def download(
    adaptation_id: Annotated[str, typer.Argument(help="What `innerloop adapt` printed.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to make; it must not be there yet.")],
    *,
    access: ServerAccess,
) -> None:
    """Take an adaptation home: a folder that answers without the server, by NumPy and ONNX Runtime.

    `python DIR/predict.py QUERIES.npy` answers raw queries, an array of the model's inputs.
    """
    with access.connect() as client:
        client.get_adaptation(adaptation_id).download(out)
    print_line(str(out / SCRIPT_NAME))


@app.command()
@with_client_options
def models(
    name: Annotated[str | None, typer.Argument(help="One model; all of them if not given.")] = None,
    as_json: AsJson = False,
    *,
    access: ServerAccess,
) -> None:
    """Describe the models of a server."""
    with access.connect() as client:
        found = client.models() if name is None else [client.model(name)]
    if not as_json:
        print_models(found)
    else:
        print_json([vars(model) for model in found] if name is None else vars(found[0]))


@app.command()
@with_client_options
def delete(
    adaptation_id: Annotated[str, typer.Argument(help="What `innerloop adapt` printed.")],
    *,
    access: ServerAccess,
) -> None:
    """Make a server forget an adaptation."""
    with access.connect() as client:
        client.delete_adaptation(adaptation_id)


@app.command()
@with_client_options
def alias(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    name: Annotated[
        str, typer.Argument(help="stable, which the model's bare name stands for, canary, or any other name.")
    ],
    version: Annotated[
        str | None,
        typer.Argument(help="Folder of a version, or the beginning of its digest; without it, the alias goes."),
    ] = None,
    percent: Annotated[
        float, typer.Option(help="Share of callers who get canary when they ask for the bare name.")
    ] = 0.0,
    *,
    access: ServerAccess,
) -> None:
    """Have an alias of a model point to one of its versions."""
    with access.connect() as client:
        print_models([client.set_alias(model, name, version, percent=percent)])


@app.command()
@with_client_options
def migrate(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    to: Annotated[
        str | None, typer.Option(help="Alias or folder of a version, or its digest. [default: stable]")
    ] = None,
    as_json: AsJson = False,
    *,
    access: ServerAccess,
) -> None:
    """Make a model's adaptations again on another version, under their ids, and wait until that is done.

    The server lets requests of callers go first, and goes on if this command is interrupted; run again, it shows how
    far that is.
    """
    with access.connect() as client:
        progress = client.migrate(model, to=to)
        with migration_shown() as show:
            while progress.state == "running":
                show(progress)
                time.sleep(LOOK_SECONDS)
                progress = client.migration(model)
    print_json(vars(progress)) if as_json else print_line(migration_result(progress))
    if progress.state != "done" or progress.failed:
        raise typer.Exit(1)

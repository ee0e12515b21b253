"""The client for the shell: adapt, predict, models, delete."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from innerloop.checks import listing
from innerloop.models import InputKind
from innerloop_command.client_options import ServerAccess, with_client_options
from innerloop_command.console import print_error, print_line
from innerloop_command.display import answer, print_answers, print_json, print_models
from innerloop_command.examples import asked_texts, labelled_files, labelled_texts
from innerloop_command.media_folders import IMAGES, RECORDINGS

app = typer.Typer(rich_markup_mode="markdown", add_completion=False)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


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
    as_json: AsJson = False,
    *,
    access: ServerAccess,
) -> None:
    """Adapt a model to labelled images, recordings or texts, and print the id of the adaptation."""
    with access.connect() as client:
        inputs, labels = _examples(examples, client.model(model).input_kind)
        info = client.adapt(
            model, inputs, labels, steps=steps, time_to_live=time_to_live, forget_examples=forget_examples
        ).info
    print_json(vars(info)) if as_json else print_line(info.id)


def _examples(arguments: Sequence[str], kind: InputKind) -> tuple[Sequence[Path | str], Sequence[str]]:
    """Examples of the kind that a model takes, and their labels; what is left out beside them is said."""
    if kind == "text":
        return labelled_texts(arguments)
    found = labelled_files(arguments, RECORDINGS if kind == "audio" else IMAGES)
    if found.left_out:
        print_error(f"innerloop: left out {len(found.left_out)}: {listing(found.left_out, ', ')}")
    return found.paths, found.labels


@app.command()
@with_client_options
def predict(
    adaptation_id: Annotated[str, typer.Argument(help="What `innerloop adapt` printed.")],
    queries: Annotated[
        list[str],
        typer.Argument(
            help="Files of images or recordings; for a model of texts, the texts, CSV files with a column text, or "
            ".txt files with a text in each line."
        ),
    ],
    as_json: AsJson = False,
    *,
    access: ServerAccess,
) -> None:
    """Ask an adaptation about images, recordings or texts."""
    with access.connect() as client:
        adaptation = client.get_adaptation(adaptation_id)
        texts = client.model(adaptation.model).input_kind == "text"
        inputs: Sequence[str | Path] = asked_texts(queries) if texts else list(map(Path, queries))
        predictions = adaptation.predict(inputs)
    kind = "text" if texts else "file"
    answers = [answer(kind, str(query), prediction) for query, prediction in zip(inputs, predictions, strict=True)]
    print_json(answers) if as_json else print_answers(answers)


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

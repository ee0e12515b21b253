"""The client for the shell: adapt, predict, models, delete."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from innerloop import TLS, Client
from innerloop_command.display import answer, print_answers, print_json, print_models
from innerloop_command.examples import labelled_files, labelled_texts

app = typer.Typer()

Server = Annotated[str, typer.Option("--server", envvar="INNERLOOP_SERVER", help="HOST:PORT of the server.")]
Tls = Annotated[bool, typer.Option("--tls", help="Talk TLS, trusting the system's authorities.")]
TlsRoots = Annotated[Path | None, typer.Option("--tls-roots", help="Talk TLS, trusting the authorities of this file.")]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds to wait for the answer.")]
Texts = Annotated[bool, typer.Option("--texts", help="Examples are texts, and not images.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

LOCAL = "localhost:50051"


@app.command()
def adapt(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    examples: Annotated[
        list[str], typer.Argument(help="A folder with one folder of images per label, or LABEL=PATH, or LABEL=TEXT.")
    ],
    texts: Texts = False,
    steps: Annotated[int | None, typer.Option(help="Inner-loop steps; the model's default if not given.")] = None,
    time_to_live: Annotated[float | None, typer.Option(help="Seconds to keep it while nobody uses it.")] = None,
    as_json: AsJson = False,
    server: Server = LOCAL,
    tls: Tls = False,
    tls_roots: TlsRoots = None,
    timeout: Timeout = 30.0,
) -> None:
    """Adapt a model to labelled images or texts, and print the id of the adaptation."""
    inputs: tuple[Sequence[str | Path], list[str]] = labelled_texts(examples) if texts else labelled_files(examples)
    with _connect(server, tls, tls_roots, timeout) as client:
        info = client.adapt(model, *inputs, steps=steps, time_to_live=time_to_live).info
    print_json(vars(info)) if as_json else typer.echo(info.id)


@app.command()
def predict(
    adaptation_id: Annotated[str, typer.Argument(help="What `innerloop adapt` printed.")],
    queries: Annotated[list[str], typer.Argument(help="PNG or JPEG files, or texts.")],
    texts: Texts = False,
    as_json: AsJson = False,
    server: Server = LOCAL,
    tls: Tls = False,
    tls_roots: TlsRoots = None,
    timeout: Timeout = 30.0,
) -> None:
    """Ask an adaptation about images or texts."""
    inputs: Sequence[str | Path] = queries if texts else list(map(Path, queries))
    with _connect(server, tls, tls_roots, timeout) as client:
        predictions = client.get_adaptation(adaptation_id).predict(inputs)
    kind = "text" if texts else "file"
    answers = [answer(kind, query, prediction) for query, prediction in zip(queries, predictions, strict=True)]
    print_json(answers) if as_json else print_answers(answers)


@app.command()
def models(
    name: Annotated[str | None, typer.Argument(help="One model; all of them if not given.")] = None,
    as_json: AsJson = False,
    server: Server = LOCAL,
    tls: Tls = False,
    tls_roots: TlsRoots = None,
    timeout: Timeout = 30.0,
) -> None:
    """Describe the models of a server."""
    with _connect(server, tls, tls_roots, timeout) as client:
        found = client.models() if name is None else [client.model(name)]
    if not as_json:
        print_models(found)
    else:
        print_json([vars(model) for model in found] if name is None else vars(found[0]))


@app.command()
def delete(
    adaptation_id: Annotated[str, typer.Argument(help="What `innerloop adapt` printed.")],
    server: Server = LOCAL,
    tls: Tls = False,
    tls_roots: TlsRoots = None,
    timeout: Timeout = 30.0,
) -> None:
    """Make a server forget an adaptation."""
    with _connect(server, tls, tls_roots, timeout) as client:
        client.delete_adaptation(adaptation_id)


def _connect(server: str, tls: bool, tls_roots: Path | None, timeout: float) -> Client:
    if tls_roots is not None and not tls_roots.is_file():
        raise typer.BadParameter(f"{tls_roots} is not a file")
    return Client(server, tls=TLS(root_certificates=tls_roots) if tls_roots else tls, timeout=timeout)

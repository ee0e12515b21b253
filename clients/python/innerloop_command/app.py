"""The list of all commands, and how one is run."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from innerloop.errors import InnerloopError
from innerloop_command.console import print_error
from innerloop_command.forgiving_output import forgiving_output
from innerloop_command.lazy import LazyGroup, Source

_CLIENT = "innerloop_command.client_commands"
_TRAINER = "innerloop_trainer.cli.app"
_SERVER = "innerloop_server.commands"
_SIGNING = "innerloop_command.signing"
_DEMO = "innerloop_command.demo.command"
_BENCH = "innerloop_command.bench.command"


class InnerloopCommands(LazyGroup):
    """All commands, in the order of a model's life."""

    sources = {  # noqa: RUF012 - never changed
        "demo": Source(_DEMO, "all", "Show how well it does on new classes, or on your own files."),
        "methods": Source(_TRAINER, "trainer", "List the methods that models can learn to learn by."),
        "sources": Source(_TRAINER, "trainer", "List the data sources that models can be trained on."),
        "data": Source(_TRAINER, "trainer", "Pack data that is larger than memory."),
        "encoders": Source(_TRAINER, "trainer", "List the frozen encoders that models can be put behind."),
        "new": Source(_TRAINER, "trainer", "Make a bundle that needs no training, behind a frozen encoder."),
        "train": Source(_TRAINER, "trainer", "Meta-train a learner on episodes."),
        "calibrate": Source(_TRAINER, "trainer", "Have a bundle say how sure its answers are."),
        "evaluate": Source(_TRAINER, "trainer", "Measure a bundle on tasks of classes it has never seen."),
        "reproduce": Source(_TRAINER, "trainer", "Train by a recipe and compare with the figures in its file."),
        "compare": Source(_TRAINER, "trainer", "Train several methods on one budget and compare them."),
        "search": Source(_TRAINER, "trainer", "Search for a network that a method learns best with."),
        "tune": Source(_TRAINER, "tune", "Search settings by accuracy on validation classes."),
        "export": Source(_TRAINER, "trainer", "Turn a training run into a bundle."),
        "card": Source(_TRAINER, "trainer", "Write the model card of a bundle."),
        "inspect": Source(_TRAINER, "trainer", "Show what a bundle holds."),
        "signing-key": Source(_SIGNING, "server-base", "Make a pair of keys to sign bundles with."),
        "sign": Source(_SIGNING, "server-base", "Sign bundles."),
        "verify": Source(_SIGNING, "server-base", "Check that bundles are complete and signed."),
        "serve": Source(_SERVER, "server", "Serve bundles over gRPC."),
        "key": Source(_SERVER, "server", "Make an API key for callers of a server."),
        "models": Source(_CLIENT, "", "Describe the models of a server."),
        "adapt": Source(_CLIENT, "", "Adapt a model to labelled images, recordings or texts."),
        "update": Source(_CLIENT, "", "Change what an adaptation has learned from."),
        "examples": Source(_CLIENT, "", "List the examples of an adaptation."),
        "predict": Source(_CLIENT, "", "Ask an adaptation about images, recordings or texts."),
        "download": Source(_CLIENT, "", "Take an adaptation home, to answer without the server."),
        "delete": Source(_CLIENT, "", "Make a server forget an adaptation."),
        "alias": Source(_CLIENT, "", "Have an alias of a model point to one of its versions."),
        "migrate": Source(_CLIENT, "", "Move a model's adaptations to another version."),
        "bench": Source(_BENCH, "bench", "Measure latency and throughput of a running server."),
    }


# A traceback shows no values of variables, which may be API keys; older versions of Typer show them unless told.
app = typer.Typer(
    cls=InnerloopCommands, no_args_is_help=True, rich_markup_mode="markdown", pretty_exceptions_show_locals=False
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"innerloop {version('innerloop')}")
        raise typer.Exit


@app.callback()
def innerloop(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Few-shot adaptation as a service: models that learn from a handful of examples."""


def run() -> None:
    """Run the command line; what fails says why on standard error, and exits with 1 or, for wrong usage, with 2."""
    with forgiving_output() as failures:
        code = _run_command()
    if failures and not code:
        if not isinstance(failures[0], BrokenPipeError):
            print_error(f"innerloop: can't write to standard output: {failures[0].strerror}")
        code = 1
    sys.exit(code)


def _run_command() -> int | str | None:
    """Run the command that the arguments name, and return its exit code."""
    try:
        app()
    except SystemExit as leaving:
        return leaving.code
    except InnerloopError as error:
        print_error(f"innerloop: {error}")
        return 1
    except OSError as error:
        if error.filename is None:
            raise
        print_error(f"innerloop: can't use {error.filename}: {error.strerror}")
        return 1
    return 0

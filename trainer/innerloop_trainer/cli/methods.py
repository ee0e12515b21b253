"""`innerloop methods`."""

from dataclasses import asdict
from typing import Annotated

import typer

from innerloop_learner.learner import methods as registered_methods
from innerloop_trainer.cli.display import print_json, print_method, print_methods
from innerloop_trainer.cli.mistakes import mistakes_as_messages
from innerloop_trainer.method_description import describe_method


def methods(
    name: Annotated[str | None, typer.Argument(help="One method, shown with its settings; all if not given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the methods that can be trained, or show one with its settings."""
    if name is None:
        infos = [registered_methods[name].info for name in registered_methods]
        print_json([asdict(info) for info in infos]) if as_json else print_methods(infos)
        return
    with mistakes_as_messages():
        description = describe_method(name)
    print_json(description.to_json()) if as_json else print_method(description)

"""`innerloop methods`."""

from dataclasses import asdict
from typing import Annotated

import typer

from innerloop_learner.learner import methods as registered_methods
from innerloop_trainer.cli.display import print_json, print_methods


def methods(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the methods that can be trained."""
    infos = [registered_methods[name].info for name in registered_methods]
    if as_json:
        print_json([asdict(info) for info in infos])
    else:
        print_methods(infos)

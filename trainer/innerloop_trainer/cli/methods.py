"""`innerloop methods`."""

from typing import Annotated

import typer

from innerloop_trainer.catalogue import describe, sections
from innerloop_trainer.cli.catalogue import print_description, print_sections
from innerloop_trainer.cli.display import print_json
from innerloop_trainer.cli.mistakes import mistakes_as_messages


def methods(
    name: Annotated[
        str | None, typer.Argument(help="A method, estimator, weighting, noise or other part; all if not given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List what can be learned and how, or show one method or part with its paper and settings."""
    if name is None:
        listed = sections()
        print_json([entry for each in listed for entry in each.to_json()]) if as_json else print_sections(listed)
        return
    with mistakes_as_messages():
        found = describe(name)
    if as_json:
        print_json([each.to_json() for each in found])
        return
    for each in found:
        print_description(each)

"""`innerloop sources`."""

from dataclasses import asdict
from typing import Annotated

import typer

from innerloop_trainer.cli.display import print_json, print_source, print_sources
from innerloop_trainer.cli.mistakes import mistakes_as_messages
from innerloop_trainer.data import sources as registered_sources
from innerloop_trainer.data.options import describe_options


def sources(
    name: Annotated[str | None, typer.Argument(help="One source, shown with its options; all if not given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the data sources that models can be trained on, or show one with its options."""
    if name is None:
        found = {name: registered_sources[name] for name in registered_sources}
        if as_json:
            print_json(
                [{"name": name, "summary": each.summary, "example": each.example} for name, each in found.items()]
            )
        else:
            print_sources(found)
        return
    with mistakes_as_messages():
        source = registered_sources[name]
    options = describe_options(source.options)
    if as_json:
        print_json({"name": name, "summary": source.summary, "options": [asdict(option) for option in options]})
    else:
        print_source(name, source, options)

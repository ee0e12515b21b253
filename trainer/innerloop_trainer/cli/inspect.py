"""`innerloop inspect`."""

from typing import Annotated

import typer

from innerloop_learner.bundle import load_bundle
from innerloop_trainer.cli.arguments import BundleArgument
from innerloop_trainer.cli.display import print_bundle, print_json
from innerloop_trainer.cli.mistakes import mistakes_as_messages
from innerloop_trainer.runs.folder import find_bundle


def inspect(
    bundle: BundleArgument, as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False
) -> None:
    """Check a bundle and show its manifest: method, limits, training run and figures."""
    with mistakes_as_messages():
        loaded = load_bundle(find_bundle(bundle))
    if as_json:
        print_json(loaded.manifest.to_json())
    else:
        print_bundle(loaded)

"""`innerloop card`."""

from pathlib import Path
from typing import Annotated

import typer

from innerloop_learner.bundle import load_bundle
from innerloop_learner.disk import replace_file
from innerloop_trainer.cli.arguments import BundleArgument
from innerloop_trainer.cli.mistakes import mistakes_as_messages
from innerloop_trainer.cli.output import console
from innerloop_trainer.config import ConfigError
from innerloop_trainer.model_card import CARD_FILE, is_card, make_card
from innerloop_trainer.recipes import read_recipe
from innerloop_trainer.runs.folder import RunFolder, find_bundle


def card(
    bundle: BundleArgument,
    recipe: Annotated[
        Path | None,
        typer.Option(help="Recipe that made it, with figures and texts.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File to write; README.md of the bundle by default.", show_default=False),
    ] = None,
) -> None:
    """Write the model card of a bundle: data, figures, limits, licence, and the recipe that made it."""
    with mistakes_as_messages():
        path = find_bundle(bundle)
        of_run = RunFolder(bundle).recipe
        file = of_run if recipe is None and of_run.is_file() else recipe
        text = make_card(load_bundle(path), None if file is None else read_recipe(file))
        target = path / CARD_FILE if out is None else out
        if target.exists() and not is_card(target.read_text(encoding="utf-8", errors="replace")):
            raise ConfigError(f"{target} is there and no model card; move it away or name another file with --out")
        replace_file(target, text.encode())
    console.print(f"Written to {target}", soft_wrap=True)

"""`innerloop reproduce`."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.table import Table

from innerloop_learner.bundle import load_bundle
from innerloop_learner.manifest import Metric
from innerloop_trainer.cli.arguments import DeviceOption
from innerloop_trainer.cli.display import number
from innerloop_trainer.cli.interrupts import end_interrupted
from innerloop_trainer.cli.mistakes import mistakes_as_messages
from innerloop_trainer.cli.output import console
from innerloop_trainer.cli.progress import progress_on_stderr
from innerloop_trainer.cli.train import train_and_test
from innerloop_trainer.devices import choose_device
from innerloop_trainer.recipes import make_recipe, merged, read_recipe
from innerloop_trainer.recipes.expected import Repeated, expected_figures, measure_again, record_figures
from innerloop_trainer.results_file import check_results_file, write_results
from innerloop_trainer.runs.folder import RunFolder

NOT_REPRODUCED = 1
"""Exit status where a figure is not what the recipe's file says."""


def reproduce(
    recipe: Annotated[Path, typer.Argument(help="File of a recipe that states its figures.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; runs/NAME for a recipe NAME.toml.", show_default=False)
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Where its data lies here, in place of what the recipe says.")
    ] = None,
    device: DeviceOption = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run that the folder holds.")] = False,
    record: Annotated[
        bool, typer.Option("--record", help="Write the figures into the recipe, rather than compare them with it.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures to this file; earlier figures there are replaced.")
    ] = None,
) -> None:
    """Train by a recipe, and compare what it reaches with the figures in its file; exit with 1 if it reaches others."""
    with mistakes_as_messages(), progress_on_stderr():
        if json_file:
            check_results_file(json_file, ("recipe", "figures"))
        file = read_recipe(recipe)
        expected = expected_figures(file, known=not record)
        chosen = make_recipe(merged(file.settings, {} if data is None else {"data": data}))
        folder, target = RunFolder(Path("runs") / recipe.stem if out is None else out), choose_device(device)
        if not train_and_test(chosen, folder, target, resume=resume):
            end_interrupted(*([] if resume else ["--resume"]))
        repeated = measure_again(load_bundle(folder.bundle, target), chosen.training.data, expected, target)
        if json_file:
            write_results(json_file, _results(recipe, repeated, target))
        if record:
            record_figures(recipe, repeated)
    _print(repeated)
    if record:
        console.print(f"Written to {recipe}", soft_wrap=True)
    elif all(each.reproduced for each in repeated):
        console.print("reproduced")
    else:
        console.print("not reproduced", style="red")
        raise typer.Exit(NOT_REPRODUCED)


def _print(repeated: Sequence[Repeated]) -> None:
    table = Table("measured", "expected", "tolerance", "reproduced", "protocol")
    for each in repeated:
        expected, measured = each.expected, each.measured
        known = expected.value is not None and expected.confidence_interval is not None
        table.add_row(
            _figure(measured, measured.value, measured.confidence_interval),
            _figure(measured, expected.value or 0.0, expected.confidence_interval or 0.0) if known else "not known yet",
            number(expected.tolerance, measured.name),
            ("yes" if each.reproduced else "no") if known else "",
            measured.protocol,
        )
    console.print(table)


def _figure(metric: Metric, value: float, interval: float) -> str:
    return f"{number(value, metric.name)} ± {number(interval, metric.name)}"


def _results(recipe: Path, repeated: Sequence[Repeated], device: torch.device) -> dict[str, object]:
    return {
        "recipe": recipe.name,
        "device": str(device),
        "figures": [
            {"expected": asdict(each.expected), "measured": asdict(each.measured), "reproduced": each.reproduced}
            for each in repeated
        ],
    }

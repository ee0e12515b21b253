"""`innerloop tune`."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from innerloop_trainer.cli.arguments import DeviceOption
from innerloop_trainer.cli.display import chosen_settings, number, print_evaluation, print_notices
from innerloop_trainer.cli.interrupts import end_interrupted, interruptible
from innerloop_trainer.cli.mistakes import mistakes_as_messages
from innerloop_trainer.cli.output import console
from innerloop_trainer.cli.progress import progress_on_stderr, tuning_progress
from innerloop_trainer.cli.recipe_options import RecipeOption, chosen_recipe, with_recipe_options
from innerloop_trainer.devices import choose_device
from innerloop_trainer.recipes import with_absolute_paths

if TYPE_CHECKING:  # Optuna takes a while to import, and other commands do without it
    from innerloop_trainer.tuning import Tried, Tuning

CHANGE_TASKS = ("ways", "shots", "queries", "wrong_labels")
"""Settings that make validation tasks easier or harder."""


@with_recipe_options
def tune(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder of the study.")],
    search: Annotated[
        list[str],
        typer.Option(
            help="Setting to search, by its name in a recipe: learning_rate=1e-4..1e-2:log, meta_batch=2..16 or "
            "set.rate=0.01,0.1,0.4.",
            metavar="NAME=VALUES",
        ),
    ],
    trials: Annotated[int, typer.Option(min=1, help="Trials in all, those of other processes included.")] = 30,
    prune: Annotated[
        bool, typer.Option("--prune/--no-prune", help="Stop trials that validate below the median of others.")
    ] = True,
    recipe: RecipeOption = None,
    device: DeviceOption = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Join the study that the folder holds, beside other processes or not.")
    ] = False,
    **_: Any,
) -> None:
    """Search settings by accuracy on validation classes, and leave the best recipe in OUT/best.toml."""
    from innerloop_trainer.tuning import Tuning, TuningFolder, read_dimensions

    with mistakes_as_messages(), progress_on_stderr():
        dimensions = read_dimensions(search)
        settings = with_absolute_paths(chosen_recipe(context, recipe).to_settings(), Path.cwd())
        study = Tuning(
            settings, dimensions, TuningFolder(out), choose_device(device), trials=trials, prune=prune, resume=resume
        )
        console.print(f"{', '.join(each.name for each in dimensions)} of {settings['method']} on ", end="")
        console.print(study.source.description)
        print_notices(study.source)
        for each in dimensions:
            if each.name in CHANGE_TASKS:
                console.print(
                    f"{each.name} changes the tasks of validation, too: trials of other {each.name} compare badly",
                    style="yellow",
                    soft_wrap=True,
                )
        with tuning_progress(study) as report, interruptible() as interrupted:
            done = study.run(report, interrupted)
        if done:
            _conclude(study)
    if not done:
        end_interrupted(*([] if resume else ["--resume"]))


def _conclude(study: "Tuning") -> None:
    """Show the trials, measure the best on test classes, and say how to train it."""
    best = study.best
    _print_trials(study.tried, study.metric, best)
    if not study.finished:
        console.print("Other processes still train trials; the last one of them measures the best on test classes")
        return
    if best is None:
        console.print("All trials failed", style="red")
        raise typer.Exit(1)
    tested = study.test_best()
    if tested is not None:
        print_evaluation(tested)
    console.print(f"Trials: {study.folder.results}\nTrain the best with:", soft_wrap=True)
    console.print(f"  innerloop train --recipe {shlex.quote(str(study.folder.best))} --out DIR", soft_wrap=True)


def _print_trials(tried: "Sequence[Tried]", metric: str, best: "Tried | None") -> None:
    table = Table("trial", "settings", "validation", "outcome")
    for each in tried:
        value = "" if each.validation is None else number(each.validation, metric)
        mark = "best" if each == best else each.failure or each.outcome
        table.add_row(str(each.trial), chosen_settings(each.settings), value, mark)
    console.print(table)

"""`innerloop search`."""

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from innerloop_trainer.cli.arguments import TRAINING, DataOption, DeviceOption, option, parse_settings
from innerloop_trainer.cli.display import print_notices, print_tried
from innerloop_trainer.cli.interrupts import end_interrupted, interruptible
from innerloop_trainer.cli.mistakes import mistakes_as_messages
from innerloop_trainer.cli.output import console
from innerloop_trainer.cli.progress import progress_on_stderr, search_progress
from innerloop_trainer.config import TrainingConfig, check_config
from innerloop_trainer.data import load_source
from innerloop_trainer.devices import choose_device
from innerloop_trainer.search import Search, SearchConfig, SearchFolder, Tried, divide_settings, searchers, spaces


def search(
    searcher: Annotated[str, typer.Argument(help=f"What to try next: {', '.join(searchers)}.")],
    method: Annotated[str, typer.Option(help="Method to train, a name that `innerloop methods` lists.")],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Folder of the search.")],
    space: Annotated[
        str, typer.Option(help=f"What to choose from, {' or '.join(spaces)} (see `innerloop methods`).")
    ] = "blocks",
    trials: Annotated[
        int | None, typer.Option(min=1, help="Architectures to train; 50 unless given, and 1 for darts.")
    ] = None,
    most_multiply_adds: Annotated[
        int | None,
        typer.Option(min=1, help="Most multiplications with additions that an architecture may take for an example."),
    ] = None,
    ways: Annotated[int, option("ways")] = TrainingConfig.ways,
    shots: Annotated[int, option("shots")] = TrainingConfig.shots,
    queries: Annotated[int | None, option("queries")] = TrainingConfig.queries,
    steps: Annotated[int | None, option("steps")] = TrainingConfig.steps,
    train_ways: Annotated[int | None, option("train_ways")] = TrainingConfig.train_ways,
    iterations: Annotated[
        int, typer.Option(min=1, help="Outer steps of each architecture.", rich_help_panel=TRAINING)
    ] = 300,
    meta_batch: Annotated[int | None, option("meta_batch")] = TrainingConfig.meta_batch,
    learning_rate: Annotated[float | None, option("learning_rate")] = TrainingConfig.learning_rate,
    seed: Annotated[int, option("seed")] = TrainingConfig.seed,
    validation_episodes: Annotated[int | None, option("validation_episodes")] = TrainingConfig.validation_episodes,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Setting of the searcher, the method or its training, NAME=VALUE.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    augment: Annotated[str | None, option("augment")] = TrainingConfig.augment,
    device: DeviceOption = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Continue the search that the folder holds.")] = False,
) -> None:
    """Search for a network that a method learns best with, by accuracy on validation classes."""
    with mistakes_as_messages(), progress_on_stderr():
        of_searcher, of_method = divide_settings(searcher, parse_settings(settings))
        training = TrainingConfig(
            method=method,
            data=data,
            ways=ways,
            shots=shots,
            queries=queries,
            steps=steps,
            train_ways=train_ways,
            iterations=iterations,
            meta_batch=meta_batch,
            learning_rate=learning_rate,
            seed=seed,
            validation_episodes=validation_episodes,
            settings=of_method,
            augment=augment,
        )
        config = SearchConfig(searcher, space, training, trials, of_searcher, most_multiply_adds)
        folder = SearchFolder(out)
        folder.check(resume=resume)
        check_config(training)
        target = choose_device(device)
        source = load_source(data, target)
        found = Search(config, source, folder, target, resume=resume)
        console.print(f"{searcher} in {space}: {found.space.size:,} architectures of {method} on {source.description}")
        print_notices(source)
        with search_progress(found) as report, interruptible() as interrupted:
            finished = found.run(report, interrupted)
    if not finished:
        end_interrupted(*([] if resume else ["--resume"]))
    _conclude(found)


def _conclude(search: Search) -> None:
    """Say what is best, and how to train it."""
    best = search.best
    if len(search.tried) < search.trials:
        console.print(f"Ended after {len(search.tried)} trials: the searcher proposes nothing new any more")
    if best is None:
        console.print("Training diverged in all trials; search again with a lower --learning-rate")
        raise typer.Exit(1)
    print_tried(best, "Best")
    console.print(f"Written to {search.folder.best}. Train it with:", soft_wrap=True)
    console.print(f"  {shlex.join(_training_command(search, best))}", soft_wrap=True)


def _training_command(search: Search, best: Tried) -> list[str]:
    """The command that trains an architecture with the options of the search, for as long as is usual."""
    config = search.config.training
    options = {
        "--data": config.data,
        "--ways": config.ways,
        "--shots": config.shots,
        "--queries": config.queries,
        "--steps": config.steps,
        "--train-ways": config.train_ways,
        "--meta-batch": config.meta_batch,
        "--learning-rate": config.learning_rate,
        "--augment": config.augment,
        "--backbone": search.space.backbone,
        "--out": str(search.folder.path / "best"),
    }
    command = ["innerloop", "train", config.method]
    for name, value in options.items():
        command += [] if value is None else [name, str(value)]
    for name, settings in (("--backbone-set", search.settings_of(best)), ("--set", config.settings)):
        for key, value in settings.items():
            command += [name, f"{key}={json.dumps(value, separators=(',', ':'))}"]
    return command

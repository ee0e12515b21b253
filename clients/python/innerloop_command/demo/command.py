"""`innerloop demo`: the whole path on one machine, from episodes to answers over gRPC."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import torch
import typer

from innerloop import Client
from innerloop_command.console import make_console
from innerloop_command.demo.folder import DemoFolder, FolderTakenError
from innerloop_command.demo.own_answers import draw_answers, print_own_figures, write_answers
from innerloop_command.demo.own_files import ENCODERS, Kind, measure, read_task, write_bundle
from innerloop_command.demo.picture import draw_task
from innerloop_command.demo.tasks import Task, draw_tasks, save_task
from innerloop_command.server_process import ServerProcess
from innerloop_learner.bundle import load_bundle, save_bundle
from innerloop_trainer.cli.train import train_and_test
from innerloop_trainer.config import ConfigError, TrainingConfig
from innerloop_trainer.data import ClassExamples, DataError, EpisodeShape, load_source
from innerloop_trainer.recipes import Recipe
from innerloop_trainer.results_file import check_results_file, write_results
from innerloop_trainer.runs.folder import RunFolder

app = typer.Typer(rich_markup_mode="markdown", add_completion=False)
console = make_console()

SHAPE = EpisodeShape(ways=5, shots=1, queries=5)
EPISODES = 100


@dataclass(frozen=True)
class Figures:
    """Figures that the demo measured, by way of the server.

    Attributes:
        accuracy_before: accuracy of the meta-learned initialisation itself, after zero inner steps.
        accuracy_after: accuracy after adapting to one example of each class.
        adapt_p50_ms, predict_p50_ms: median latency of a call, in milliseconds.
        train_seconds: how long meta-training took.
        picture: where the picture of a typical task is.
    """

    accuracy_before: float
    accuracy_after: float
    adapt_p50_ms: float
    predict_p50_ms: float
    train_seconds: float
    picture: str


@app.command()
def demo(
    photos: Annotated[
        Path | None,
        typer.Option(help="Show it on your own photographs: a folder that has a folder of images for each label."),
    ] = None,
    texts: Annotated[
        Path | None, typer.Option(help="Show it on your own texts: a CSV file with columns text and label.")
    ] = None,
    audio: Annotated[
        Path | None,
        typer.Option(help="Show it on your own recordings: a folder that has a folder of WAV or FLAC files per label."),
    ] = None,
    data: Annotated[
        str,
        typer.Option(help="Data source with images to train on, such as omniglot:PATH; `innerloop sources` lists all."),
    ] = "glyphs",
    out: Annotated[
        Path, typer.Option(help="Folder for the model and the picture; nothing but an earlier demo is replaced.")
    ] = Path("innerloop-demo"),
    iterations: Annotated[int, typer.Option(min=1, help="Outer steps of training.")] = 3000,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures to this file; earlier figures there are replaced.")
    ] = None,
) -> None:
    """Meta-train a small model, serve it, adapt it to classes it has never seen, and show how well it does.

    With `--photos`, `--texts` or `--audio` nothing is trained: a pre-trained encoder learns from a few of your own
    examples, and is asked about others.
    """
    folder = DemoFolder(out)
    given: dict[Kind, Path | None] = {"photos": photos, "texts": texts, "audio": audio}
    own = {kind: path for kind, path in given.items() if path is not None}
    if own:
        _on_own_files(own, folder, json_file)
        return
    try:
        if json_file:
            check_results_file(json_file, ("accuracy_before", "accuracy_after"))
        unseen = _unseen_classes(data)
        folder.clear()
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint="--json") from error
    except DataError as error:
        raise typer.BadParameter(str(error), param_hint="--data") from error
    except FolderTakenError as error:
        raise typer.BadParameter(str(error), param_hint="--out") from error
    try:
        run = _train(data, folder, iterations)
        figures = _serve(run, unseen, folder)
    finally:
        folder.record()
    _print(figures, folder)
    if json_file:
        write_results(json_file, asdict(figures))


def _on_own_files(own: dict[Kind, Path], folder: DemoFolder, json_file: Path | None) -> None:
    if len(own) > 1:
        raise typer.BadParameter(f"one of --{' and --'.join(own)} at a time")
    ((kind, path),) = own.items()
    if not path.exists():
        raise typer.BadParameter(f"there is no file or folder {path}", param_hint=f"--{kind}")
    task = read_task(kind, path)
    try:
        if json_file:
            check_results_file(json_file, ("accuracy", "adapt_ms"))
        folder.clear()
        console.print(f"Making a model behind the encoder {ENCODERS[kind]}; nothing is trained")
        write_bundle(kind, folder)
    except FolderTakenError as error:
        raise typer.BadParameter(str(error), param_hint="--out") from error
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error
    try:
        console.print(
            f"Serving it, and adapting over gRPC to {len(task.classes)} classes from up to {task.shots} examples each"
        )
        figures, task, answers = measure(kind, task, folder)
        write_answers(task, answers, folder.answers)
        draw_answers(kind, task, answers, folder.picture)
    finally:
        folder.record()
    print_own_figures(figures, folder)
    if json_file:
        write_results(json_file, asdict(figures))


def _unseen_classes(data: str) -> ClassExamples:
    """The classes for testing, which training never shows.

    Raises:
        DataError: there is no such source, or it has no images or too few classes.
    """
    unseen = load_source(data).test
    if not isinstance(unseen, ClassExamples):
        raise DataError(f"the demo needs images to look at, which {data!r} has not; try --data glyphs")
    unseen.check(SHAPE)
    return unseen


def _train(data: str, folder: DemoFolder, iterations: int) -> RunFolder:
    run = RunFolder(folder.run)
    config = TrainingConfig(
        method="anil",
        data=data,
        ways=SHAPE.ways,
        shots=SHAPE.shots,
        queries=3,
        steps=5,
        iterations=iterations,
        meta_batch=8,
        learning_rate=0.003,
        validate_every=max(iterations // 5, 1),
        validation_episodes=100,
        settings={"rate": 0.1},
        backbone_settings={"width": 32, "downsample": "stride"},
    )
    if not train_and_test(Recipe(config), run, torch.device("cpu")):
        raise typer.Exit(130)
    return run


def _serve(run: RunFolder, unseen: ClassExamples, folder: DemoFolder) -> Figures:
    """Serve what was trained, and measure it by way of the server."""
    bundle = load_bundle(run.bundle)
    save_bundle(folder.bundle, bundle.manifest, bundle.params, bundle.files)
    tasks = draw_tasks(unseen, SHAPE, EPISODES)
    console.print(f"Serving it, and adapting over gRPC to {SHAPE.ways} unseen classes from {SHAPE.shots} example each")
    with ServerProcess(folder.models) as server, Client(server.target) as client:
        return _measure(client, tasks, folder, _training_seconds(run))


def _measure(client: Client, tasks: list[Task], folder: DemoFolder, train_seconds: float) -> Figures:
    before, after, answers, adapt_ms, predict_ms = [], [], [], [], []
    for task in tasks:
        with client.adapt(folder.bundle.name, task.support, task.support_labels, steps=0) as untouched:
            before.append(_accuracy(untouched.predict(task.query).labels, task))
        start = time.perf_counter()
        adaptation = client.adapt(folder.bundle.name, task.support, task.support_labels)
        adapted = time.perf_counter()
        predictions = adaptation.predict(task.query)
        adapt_ms.append((adapted - start) * 1e3)
        predict_ms.append((time.perf_counter() - adapted) * 1e3)
        answers.append(predictions.labels)
        after.append(_accuracy(answers[-1], task))
    typical = int(np.argmin(np.abs(np.array(after) - np.mean(after))))
    shown = tasks[typical]
    save_task(shown, folder.task)
    draw_task(shown.support, shown.support_labels, shown.query, shown.query_labels, answers[typical], folder.picture)
    return Figures(
        accuracy_before=float(np.mean(before)),
        accuracy_after=float(np.mean(after)),
        adapt_p50_ms=median(adapt_ms),
        predict_p50_ms=median(predict_ms),
        train_seconds=train_seconds,
        picture=str(folder.picture.resolve()),
    )


def _accuracy(answers: list[str], task: Task) -> float:
    return float(np.mean([answer == truth for answer, truth in zip(answers, task.query_labels, strict=True)]))


def _training_seconds(run: RunFolder) -> float:
    return run.load_latest(torch.device("cpu"))[1].seconds


def _print(figures: Figures, folder: DemoFolder) -> None:
    chance = 1 / SHAPE.ways
    console.print(
        f"accuracy without adaptation {figures.accuracy_before:.1%} (chance is {chance:.0%})\n"
        f"accuracy with adaptation    {figures.accuracy_after:.1%}\n"
        f"Adapt   p50 {figures.adapt_p50_ms:.1f} ms\n"
        f"Predict p50 {figures.predict_p50_ms:.1f} ms\n"
        f"Picture: {figures.picture}\n"
        f"The images of that task: {folder.task}\n"
        f"Serve the model yourself: innerloop serve --models {folder.models}",
        soft_wrap=True,
    )

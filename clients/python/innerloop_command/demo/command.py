"""`innerloop demo`: the whole path on one machine, from episodes to answers over gRPC."""

import time
from collections.abc import Mapping
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
from innerloop_learner.bundle import Bundle, load_bundle, save_bundle
from innerloop_learner.manifest import BundleError
from innerloop_learner.zoo import zoo_folder
from innerloop_trainer.cli.train import train_and_test
from innerloop_trainer.config import ConfigError, TrainingConfig
from innerloop_trainer.data import ClassExamples, DataError, EpisodeShape, load_source
from innerloop_trainer.recipes import Recipe
from innerloop_trainer.results_file import check_results_file, write_results
from innerloop_trainer.runs.folder import RunFolder
from innerloop_trainer.seen_classes import leave_out_seen

app = typer.Typer(rich_markup_mode="markdown", add_completion=False)
console = make_console()

SHAPE = EpisodeShape(ways=5, shots=1, queries=5)
EPISODES = 100
ITERATIONS = 3000
"""Outer steps of training."""

ZOO_MODEL = "glyphs"
"""Model of the zoo that the demo shows."""


@dataclass(frozen=True)
class Figures:
    """Figures that the demo measured, by way of the server.

    Attributes:
        accuracy_before: accuracy of the meta-learned initialisation itself, after zero inner steps; None for a model
            without inner steps.
        accuracy_after: accuracy after adapting to one example of each class.
        adapt_p50_ms, predict_p50_ms: median latency of a call, in milliseconds.
        train_seconds: how long meta-training took; None if nothing was trained.
        picture: where the picture of a typical task is.
    """

    accuracy_before: float | None
    accuracy_after: float
    adapt_p50_ms: float
    predict_p50_ms: float
    train_seconds: float | None
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
    train: Annotated[
        bool,
        typer.Option("--train", help="Train a model here, in a minute or two, and show that."),
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(
            help="Data source with images to train on, such as omniglot:PATH; `innerloop sources` lists all. Trains, "
            "like --train."
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder for the model and the picture; nothing but an earlier demo is replaced.")
    ] = Path("innerloop-demo"),
    iterations: Annotated[
        int | None, typer.Option(min=1, help="Outer steps of training, 3,000 if not given. Trains, like --train.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures to this file; earlier figures there are replaced.")
    ] = None,
) -> None:
    """Serve a small model, adapt it to classes it has never seen, and show how well it does.

    The model comes along with Innerloop, unless `--train` meta-trains one here. With `--photos`, `--texts` or `--audio`
    a pre-trained encoder learns from a few of your own examples, and is asked about others.
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
        trains = train or data is not None or iterations is not None
        bundle = None if trains else load_bundle(zoo_folder() / ZOO_MODEL)
        unseen = _unseen_classes(data or "glyphs", {} if bundle is None else bundle.manifest.provenance.classes)
        folder.clear()
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint="--json") from error
    except DataError as error:
        raise typer.BadParameter(str(error), param_hint="--data") from error
    except BundleError as error:
        raise typer.BadParameter(f"{error}; train a model with --train") from error
    except FolderTakenError as error:
        raise typer.BadParameter(str(error), param_hint="--out") from error
    try:
        seconds = None
        if bundle is None:
            run = _train(data or "glyphs", folder, iterations or ITERATIONS)
            bundle, seconds = load_bundle(run.bundle), _training_seconds(run)
        else:
            learner = bundle.manifest.learner
            console.print(
                f"Starts from {bundle.manifest.name}, a model that comes with Innerloop ({learner.method} on "
                f"{bundle.manifest.provenance.data}); train one here with innerloop demo --train",
                soft_wrap=True,
            )
        figures = _serve(bundle, unseen, folder, seconds)
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


def _unseen_classes(data: str, seen: Mapping[str, str]) -> ClassExamples:
    """The classes for testing, which training never shows.

    Args:
        data: data source.
        seen: digests of the classes that the model has seen already, by split.

    Raises:
        DataError: there is no such source, or it has no images or too few classes.
    """
    unseen, _ = leave_out_seen(load_source(data).test, "test", seen, SHAPE.ways)
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


def _serve(bundle: Bundle, unseen: ClassExamples, folder: DemoFolder, train_seconds: float | None) -> Figures:
    """Serve a model, and measure it by way of the server."""
    save_bundle(folder.bundle, bundle.manifest, bundle.params, bundle.files)
    tasks = draw_tasks(unseen, SHAPE, EPISODES)
    console.print(f"Serving it, and adapting over gRPC to {SHAPE.ways} unseen classes from {SHAPE.shots} example each")
    with ServerProcess(folder.models) as server, Client(server.target) as client:
        return _measure(client, tasks, folder, train_seconds, steps=bundle.learner.default_steps)


def _measure(
    client: Client, tasks: list[Task], folder: DemoFolder, train_seconds: float | None, *, steps: int
) -> Figures:
    before, after, answers, adapt_ms, predict_ms = [], [], [], [], []
    for task in tasks:
        if steps:
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
        accuracy_before=float(np.mean(before)) if before else None,
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
    if figures.accuracy_before is not None:
        console.print(f"accuracy without adaptation {figures.accuracy_before:.1%}")
    console.print(
        f"accuracy with adaptation    {figures.accuracy_after:.1%} (chance is {chance:.0%})\n"
        f"Adapt   p50 {figures.adapt_p50_ms:.1f} ms\n"
        f"Predict p50 {figures.predict_p50_ms:.1f} ms\n"
        f"Picture: {figures.picture}\n"
        f"The images of that task: {folder.task}\n"
        f"Serve the model yourself: innerloop serve --models {folder.models}",
        soft_wrap=True,
    )

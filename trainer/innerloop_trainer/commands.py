"""Commands of the trainer: methods, train, evaluate, export, inspect."""

import json
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from innerloop_learner.bundle import MANIFEST, Bundle, BundleError, Manifest, load_bundle, save_bundle
from innerloop_learner.learner import methods as registered_methods
from innerloop_trainer.config import TrainingConfig, make_plan
from innerloop_trainer.data import EpisodeShape, load_source
from innerloop_trainer.evaluation import Evaluation, Protocol
from innerloop_trainer.evaluation import evaluate as evaluate_learner
from innerloop_trainer.manifest import make_manifest
from innerloop_trainer.run_folder import RunError, RunFolder
from innerloop_trainer.training import Report, Training

app = typer.Typer(no_args_is_help=True, add_completion=False)
console = Console()

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


@app.command()
def methods(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the methods that can be trained."""
    infos = [registered_methods[name].info for name in registered_methods]
    if as_json:
        _print_json([{key: value for key, value in asdict(info).items() if key != "training"} for info in infos])
        return
    table = Table("method", "family", "gradients at serving", "other ways", "tasks", "paper")
    for info in infos:
        gradients = "yes" if info.gradients_at_serving else "no"
        table.add_row(info.name, info.family, gradients, info.ways_can_change, ", ".join(info.tasks), info.paper)
    console.print(table)


@app.command()
def train(
    method: Annotated[str, typer.Argument(help="A name that `innerloop methods` lists.")],
    data: Annotated[str, typer.Option(help="Data source, for example omniglot:PATH or glyphs.")],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    ways: Annotated[int, typer.Option(min=2, help="Classes per task.")] = 5,
    shots: Annotated[int, typer.Option(min=1, help="Support examples per class.")] = 1,
    queries: Annotated[int | None, typer.Option(min=1, help="Queries per class in training.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Inner steps.")] = None,
    train_ways: Annotated[int | None, typer.Option(min=2, help="Classes per training episode.")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="Outer steps.")] = None,
    meta_batch: Annotated[int | None, typer.Option(min=1, help="Tasks per outer step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Outer learning rate.")] = None,
    seed: Annotated[int, typer.Option(help="Of initialisation and episodes.")] = 0,
    validate_every: Annotated[int, typer.Option(min=1, help="Outer steps between validations.")] = 250,
    validation_episodes: Annotated[int, typer.Option(min=2, help="Tasks per validation.")] = 200,
    test_episodes: Annotated[int, typer.Option(min=2, help="Tasks of the final test.")] = 600,
    backbone: Annotated[str | None, typer.Option(help="Feature extractor.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Setting of the method, NAME=VALUE.")] = None,
    backbone_settings: Annotated[
        list[str] | None, typer.Option("--backbone-set", help="Setting of the backbone, NAME=VALUE.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run that the folder holds.")] = False,
) -> None:
    """Meta-train a method and leave a bundle of the best validated parameters in OUT/bundle."""
    config = TrainingConfig(
        method=method,
        data=data,
        ways=ways,
        shots=shots,
        train_ways=train_ways,
        queries=queries,
        steps=steps,
        iterations=iterations,
        meta_batch=meta_batch,
        learning_rate=learning_rate,
        seed=seed,
        validate_every=validate_every,
        validation_episodes=validation_episodes,
        settings=_parse_settings(settings),
        backbone=backbone,
        backbone_settings=_parse_settings(backbone_settings),
    )
    with _errors_as_messages():
        finished = run_training(config, RunFolder(out), _device(device), resume=resume, test_episodes=test_episodes)
    if not finished:
        command = shlex.join(["innerloop", *sys.argv[1:]] + ([] if resume else ["--resume"]))
        console.print(f"Stopped; everything is saved. Continue with:\n  {command}", soft_wrap=True)
        raise typer.Exit(INTERRUPTED)


def run_training(
    config: TrainingConfig,
    folder: RunFolder,
    device: torch.device,
    *,
    resume: bool = False,
    test_episodes: int = 600,
) -> bool:
    """Train with a progress bar, then test on unseen classes and record the figure in the bundle.

    Returns:
        whether training finished; Ctrl-C ends it early, with everything saved.
    """
    source = load_source(config.data, device)
    plan = make_plan(config, source)
    source.test.check(plan.validation)
    training = Training(plan, source, folder, device, resume=resume)
    console.print(f"{config.method} on {source.description}")
    with _progress_bar(config.method, plan.iterations) as report, _interruptible() as interrupted:
        if not training.run(report, interrupted):
            return False
    bundle = load_bundle(folder.bundle, device)
    result = evaluate_learner(
        bundle.learner,
        bundle.params,
        source.test,
        plan.validation,
        split="test",
        episodes=test_episodes,
        seed=config.seed,
    )
    metrics = [*bundle.manifest.metrics, result.to_metric(source.name)]
    manifest = make_manifest(plan, source, training.progress, metrics)
    save_bundle(folder.bundle, manifest, bundle.params)
    _print_evaluation(result, source.name)
    console.print(f"Bundle: {folder.bundle}\nLearning curve: {folder.curve}", soft_wrap=True)
    return True


@app.command()
def evaluate(
    bundle: Annotated[Path, typer.Argument(help="A bundle, or the folder of a run.")],
    data: Annotated[str, typer.Option(help="Data source, for example omniglot:PATH or glyphs.")],
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    ways: Annotated[int | None, typer.Option(min=2, help="Classes per task; those trained for by default.")] = None,
    shots: Annotated[int | None, typer.Option(min=1, help="Examples per class; those trained for by default.")] = None,
    queries: Annotated[int, typer.Option(min=1, help="Queries per class.")] = 15,
    steps: Annotated[int | None, typer.Option(min=0, help="Inner steps.")] = None,
    episodes: Annotated[int, typer.Option(min=2, help="How many tasks.")] = 600,
    protocol: Annotated[str, typer.Option(help="inductive, or transductive as many papers do.")] = "inductive",
    seed: Annotated[int, typer.Option(help="Of the episodes.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
) -> None:
    """Measure a bundle on unseen classes: mean and 95% confidence interval over episodes."""
    with _errors_as_messages():
        target = _device(device)
        loaded = load_bundle(_bundle_path(bundle), target)
        source = load_source(data, target)
        limits = loaded.manifest.limits
        shape = EpisodeShape(ways or limits.trained_ways or 1, shots or limits.trained_shots, queries)
        result = evaluate_learner(
            loaded.learner,
            loaded.params,
            _choose(split, {"train": source.train, "validation": source.validation, "test": source.test}, "--split"),
            shape,
            split=split,
            episodes=episodes,
            seed=seed,
            steps=steps,
            protocol=_choose(protocol, _PROTOCOLS, "--protocol"),
        )
    _print_evaluation(result, source.name)
    if json_file:
        figures = {
            **asdict(result.to_metric(source.name)),
            "bundle": loaded.manifest.digest,
            "method": loaded.manifest.learner.method,
            "seed": seed,
            "steps": loaded.learner.default_steps if steps is None else steps,
            "device": str(target),
        }
        json_file.write_text(json.dumps(figures, indent=2) + "\n")


@app.command()
def export(
    source: Annotated[Path, typer.Argument(help="A run or a bundle.", metavar="RUN_OR_BUNDLE")],
    out: Annotated[Path, typer.Option(help="Bundle to write; its folder's name becomes the model's name.")],
) -> None:
    """Write a bundle for the server from the best parameters of a run, or from another bundle."""
    with _errors_as_messages():
        bundle = load_bundle(_bundle_path(source))
        manifest = save_bundle(out, replace(bundle.manifest, name=out.name), bundle.params)
    console.print(f"{out}: version {manifest.version}", soft_wrap=True)


@app.command()
def inspect(
    bundle: Annotated[Path, typer.Argument(help="A bundle, or the folder of a run.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Show what a bundle says of itself, after checking it."""
    with _errors_as_messages():
        loaded = load_bundle(_bundle_path(bundle))
    if as_json:
        _print_json(loaded.manifest.to_json())
    else:
        console.print(_manifest_table(loaded))


_PROTOCOLS: dict[str, Protocol] = {"inductive": "inductive", "transductive": "transductive"}


@contextmanager
def _errors_as_messages() -> Iterator[None]:
    """Turn errors of use into one line and exit status 2; anything else is a defect and keeps its traceback."""
    try:
        yield
    except (ValueError, FileNotFoundError, PermissionError) as error:
        typer.secho(f"Error: {error}", fg="red", err=True)
        raise typer.Exit(2) from error


@contextmanager
def _interruptible() -> Iterator[Any]:
    """A function that tells whether Ctrl-C or SIGTERM came; a second Ctrl-C ends the program at once."""
    caught: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        caught.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(caught)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress_bar(title: str, iterations: int) -> Iterator[Any]:
    """A function that shows reports of training."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]:.0f} tasks/s  loss {task.fields[loss]:.3f}  validation {task.fields[best]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, refresh_per_second=4) as progress:
        task = progress.add_task(title, total=iterations, speed=0.0, loss=float("nan"), best="-")

        def show(report: Report) -> None:
            fields: dict[str, Any] = {"speed": report.tasks_per_second, "loss": report.loss}
            if report.validation is not None:
                fields["best"] = f"{report.validation:.4f} (best {report.progress.best_value:.4f})"
            progress.update(task, completed=report.progress.iteration, **fields)

        yield show


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("this machine offers no CUDA device to PyTorch; use --device cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"unknown device {name!r}; use auto, cpu or cuda") from error


def _bundle_path(path: Path) -> Path:
    """The bundle at `path`, or that of the run at `path`."""
    if (path / MANIFEST).is_file():
        return path
    run = RunFolder(path)
    if not run.exists:
        raise BundleError(f"{path} is neither a bundle nor a training run")
    if not run.bundle.is_dir():
        raise RunError(f"{path} has no bundle yet, since nothing was validated; train on with --resume")
    return run.bundle


def _parse_settings(texts: list[str] | None) -> dict[str, Any]:
    """NAME=VALUE texts as a mapping; values are JSON where they can be, plain text otherwise."""
    settings: dict[str, Any] = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"{text!r} is not of the form NAME=VALUE")
        try:
            settings[name] = json.loads(value)
        except json.JSONDecodeError:
            settings[name] = value
    return settings


def _choose(name: str, choices: dict[str, Any], option: str) -> Any:
    if name not in choices:
        raise ValueError(f"{option} must be one of {', '.join(choices)}, not {name!r}")
    return choices[name]


def _print_evaluation(result: Evaluation, data: str) -> None:
    metric = result.to_metric(data)
    if metric.name == "accuracy":
        figure = f"{metric.value:.2%} ± {metric.confidence_interval:.2%}"
    else:
        figure = f"{metric.value:.4f} ± {metric.confidence_interval:.4f}"
    console.print(f"{metric.name.replace('_', ' ')} {figure}  ({metric.protocol})")


def _manifest_table(bundle: Bundle) -> Table:
    manifest: Manifest = bundle.manifest
    table = Table(show_header=False, title=manifest.name)
    parameters = sum(value.numel() for value in bundle.params.values())
    rows: dict[str, Any] = {
        "version": manifest.version,
        "method": f"{manifest.learner.method} {dict(manifest.learner.settings) or ''}",
        "backbone": f"{manifest.learner.backbone} {dict(manifest.learner.backbone_settings)}",
        "parameters": f"{parameters:,}",
        "input": f"{manifest.learner.input.dtype} {list(manifest.learner.input.shape)}",
        "tasks": f"{manifest.learner.task_kind} {asdict(manifest.limits)}",
        "data": manifest.provenance.data,
        "trained": f"{manifest.provenance.iterations} outer steps, seed {manifest.provenance.seed}",
        "created": f"{manifest.provenance.created} with {dict(manifest.provenance.versions)}",
    }
    for metric in manifest.metrics:
        rows[metric.name] = f"{metric.value:.4f} ± {metric.confidence_interval:.4f} ({metric.protocol})"
    for name, value in rows.items():
        table.add_row(name, str(value))
    return table


def _print_json(data: Any) -> None:
    typer.echo(json.dumps(data, indent=2))

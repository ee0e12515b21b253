"""Commands of the trainer: methods, train, evaluate, export, inspect."""

import json
import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from innerloop_learner.bundle import Bundle, load_bundle, save_bundle
from innerloop_learner.learner import methods as registered_methods
from innerloop_learner.manifest import ADAPT, PREDICT
from innerloop_trainer.arguments import check_writable, choose_device, find_bundle, parse_settings
from innerloop_trainer.compare_command import compare_methods
from innerloop_trainer.config import ConfigError, TrainingConfig
from innerloop_trainer.data import EpisodeShape, load_source
from innerloop_trainer.display import console, print_bundle, print_evaluation, print_methods
from innerloop_trainer.evaluation import Protocol, check_source
from innerloop_trainer.evaluation import evaluate as evaluate_learner
from innerloop_trainer.interrupts import INTERRUPTED
from innerloop_trainer.mistakes import mistakes_as_messages
from innerloop_trainer.outer_loop import Schedule
from innerloop_trainer.run_folder import RunFolder
from innerloop_trainer.session import run_training

app = typer.Typer(no_args_is_help=True, add_completion=False)
app.command("compare")(compare_methods)

Data = Annotated[str, typer.Option(help="Data source, for example omniglot:PATH or glyphs.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
BundlePath = Annotated[Path, typer.Argument(help="A bundle, or the folder of a run.")]


@app.command()
def methods(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the methods that can be trained."""
    infos = [registered_methods[name].info for name in registered_methods]
    if as_json:
        _print_json([{key: value for key, value in asdict(info).items() if key != "training"} for info in infos])
    else:
        print_methods(infos)


@app.command()
def train(
    method: Annotated[str, typer.Argument(help="A name that `innerloop methods` lists.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    ways: Annotated[int, typer.Option(min=2, help="Classes per task.")] = 5,
    shots: Annotated[int, typer.Option(min=1, help="Support examples per class.")] = 1,
    queries: Annotated[int | None, typer.Option(min=1, help="Queries per class in training.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Inner steps.")] = None,
    train_ways: Annotated[int | None, typer.Option(min=2, help="Classes per training episode.")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="Outer steps.")] = None,
    meta_batch: Annotated[int | None, typer.Option(min=1, help="Tasks per outer step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Outer learning rate.")] = None,
    schedule: Annotated[Schedule, typer.Option(help="Of the outer learning rate.")] = "cosine",
    seed: Annotated[int, typer.Option(help="Of initialisation and episodes.")] = 0,
    validate_every: Annotated[int, typer.Option(min=1, help="Outer steps between validations.")] = 250,
    validation_episodes: Annotated[int, typer.Option(min=2, help="Tasks per validation.")] = 200,
    test_episodes: Annotated[int, typer.Option(min=2, help="Tasks of the final test.")] = 600,
    backbone: Annotated[str | None, typer.Option(help="Feature extractor.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Setting of the method, NAME=VALUE.")] = None,
    backbone_settings: Annotated[
        list[str] | None, typer.Option("--backbone-set", help="Setting of the backbone, NAME=VALUE.")
    ] = None,
    init: Annotated[
        Path | None, typer.Option(help="Bundle, run or safetensors file whose parameters to start from.")
    ] = None,
    device: Device = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run that the folder holds.")] = False,
) -> None:
    """Meta-train a method and leave a bundle of the best validated parameters in OUT/bundle."""
    with mistakes_as_messages():
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
            schedule=schedule,
            seed=seed,
            validate_every=validate_every,
            validation_episodes=validation_episodes,
            settings=parse_settings(settings),
            backbone=backbone,
            backbone_settings=parse_settings(backbone_settings),
        )
        target = choose_device(device)
        finished = run_training(config, RunFolder(out), target, init=init, resume=resume, test_episodes=test_episodes)
    if not finished:
        command = shlex.join(["innerloop", *sys.argv[1:], *([] if resume else ["--resume"])])
        console.print(f"Stopped; everything is saved. Continue with:\n  {command}", soft_wrap=True)
        raise typer.Exit(INTERRUPTED)


@app.command()
def evaluate(
    bundle: BundlePath,
    data: Data,
    split: Annotated[Literal["train", "validation", "test"], typer.Option(help="Where tasks come from.")] = "test",
    ways: Annotated[int | None, typer.Option(min=2, help="Classes per task; those trained for by default.")] = None,
    shots: Annotated[int | None, typer.Option(min=1, help="Examples per class; those trained for by default.")] = None,
    queries: Annotated[int, typer.Option(min=1, help="Queries per class.")] = 15,
    steps: Annotated[int | None, typer.Option(min=0, help="Inner steps.")] = None,
    episodes: Annotated[int, typer.Option(min=2, help="How many tasks.")] = 600,
    protocol: Annotated[Protocol, typer.Option(help="Transductive as many papers do.")] = "inductive",
    seed: Annotated[int, typer.Option(help="Of the episodes.")] = 0,
    device: Device = "auto",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
) -> None:
    """Measure a bundle on unseen classes: mean and 95% confidence interval over episodes."""
    with mistakes_as_messages():
        if json_file:
            check_writable(json_file)
        target = choose_device(device)
        loaded = load_bundle(find_bundle(bundle), target)
        source = load_source(data, target)
        check_source(loaded.learner, source)
        limits = loaded.manifest.limits
        result = evaluate_learner(
            loaded.learner,
            loaded.params,
            {"train": source.train, "validation": source.validation, "test": source.test}[split],
            EpisodeShape(ways or limits.trained_ways or 1, shots or limits.trained_shots, queries),
            split=split,
            episodes=episodes,
            seed=seed,
            steps=steps,
            protocol=protocol,
        )
        metric = result.to_metric(source.name)
        print_evaluation(metric)
        if json_file:
            figures = {
                **asdict(metric),
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
    onnx: Annotated[bool, typer.Option("--onnx", help="Add the whole inner loop as ONNX graphs.")] = False,
) -> None:
    """Write a bundle for the server from the best parameters of a run, or from another bundle."""
    with mistakes_as_messages():
        bundle = load_bundle(find_bundle(source))
        if onnx:
            bundle = _with_graphs(bundle)
        manifest = save_bundle(out, replace(bundle.manifest, name=out.resolve().name), bundle.params, bundle.files)
    console.print(f"{out}: version {manifest.version}", soft_wrap=True)
    if manifest.graphs is not None and manifest.graphs.refused:
        console.print(f"without ONNX graphs: {manifest.graphs.refused}", style="yellow", soft_wrap=True)


@app.command()
def inspect(
    bundle: BundlePath, as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False
) -> None:
    """Show what a bundle says of itself, after checking it."""
    with mistakes_as_messages():
        loaded = load_bundle(find_bundle(bundle))
    if as_json:
        _print_json(loaded.manifest.to_json())
    else:
        print_bundle(loaded)


def _with_graphs(bundle: Bundle) -> Bundle:
    """The bundle with its learner as ONNX graphs, or with the reason why there are none."""
    try:
        from innerloop_trainer.onnx_export.graphs import export_graphs
    except ModuleNotFoundError as error:
        raise ConfigError(f'--onnx needs {error.name}: pip install "innerloop[onnx]"') from error
    graphs, files = export_graphs(bundle)
    others = {name: content for name, content in bundle.files.items() if name not in (ADAPT, PREDICT)}
    return replace(bundle, manifest=replace(bundle.manifest, graphs=graphs), files={**others, **files})


def _print_json(data: Any) -> None:
    typer.echo(json.dumps(data, indent=2))

"""`innerloop evaluate`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from innerloop_learner.bundle import load_bundle
from innerloop_learner.host_memory import keep_freed_memory
from innerloop_trainer.bundle_evaluation import evaluate_bundle
from innerloop_trainer.calibration import measure_honesty
from innerloop_trainer.cli.arguments import BundleArgument, DataOption, DeviceOption
from innerloop_trainer.cli.display import print_figure, print_honesty
from innerloop_trainer.cli.mistakes import mistakes_as_messages
from innerloop_trainer.cli.output import console
from innerloop_trainer.cli.progress import progress_on_stderr
from innerloop_trainer.devices import choose_device
from innerloop_trainer.evaluation import Protocol
from innerloop_trainer.report import FULL, check_report_file, make_report, subject_of, write_report
from innerloop_trainer.results_file import check_results_file, write_results
from innerloop_trainer.runs.folder import find_bundle
from innerloop_trainer.seen_classes import Split


def evaluate(
    bundle: BundleArgument,
    data: DataOption,
    split: Annotated[
        Split | None,
        typer.Option(
            help="Classes that tasks are drawn from; test, or all if nothing was meta-trained.", show_default=False
        ),
    ] = None,
    ways: Annotated[
        int | None, typer.Option(min=2, help="Classes per task; as many as in training by default.")
    ] = None,
    shots: Annotated[
        int | None, typer.Option(min=1, help="Support examples per class; as many as in training by default.")
    ] = None,
    queries: Annotated[int, typer.Option(min=1, help="Queries per class.")] = 15,
    steps: Annotated[int | None, typer.Option(min=0, help="Inner steps; the model's default if not given.")] = None,
    episodes: Annotated[int, typer.Option(min=2, help="Number of tasks.")] = 600,
    protocol: Annotated[
        Protocol, typer.Option(help="transductive lets queries normalise each other, as many papers do.")
    ] = "inductive",
    seed: Annotated[int, typer.Option(help="Seed of the episodes.")] = 0,
    device: DeviceOption = "auto",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures to this file; earlier figures there are replaced.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Write a page (HTML) with curves, calibration, hardest tasks and a map of embeddings."),
    ] = None,
) -> None:
    """Measure a bundle on unseen classes: mean and 95% interval over episodes, and how sure a calibrated one may be."""
    with mistakes_as_messages(), progress_on_stderr():
        if json_file:
            check_results_file(json_file, ("bundle", "protocol", "value"))
        if report:
            check_report_file(report)
        keep_freed_memory()
        target = choose_device(device)
        loaded = load_bundle(find_bundle(bundle), target)
        figure = evaluate_bundle(
            loaded,
            data,
            target,
            split=split,
            ways=ways,
            shots=shots,
            queries=queries,
            episodes=episodes,
            seed=seed,
            steps=steps,
            protocol=protocol,
        )
        print_figure(figure, loaded)
        honest = None
        if protocol == "inductive":  # as servers answer
            honest = measure_honesty(
                loaded, figure.sampler, figure.shape, episodes=episodes, seed=seed, steps=figure.steps
            )
        if honest is not None:
            print_honesty(honest)
        if json_file:
            figures = {
                **asdict(figure.metric),
                "calibration": None if honest is None else asdict(honest),
                "left_out": figure.left_out,
                "options": figure.source.options,
                "bundle": loaded.manifest.digest,
                "method": loaded.manifest.learner.method,
                "seed": seed,
                "steps": figure.steps,
                "device": str(target),
            }
            write_results(json_file, figures)
        if report:
            write_report(report, make_report(subject_of(loaded, data, figure, seed), FULL))
            console.print(f"Report: {report}", soft_wrap=True)

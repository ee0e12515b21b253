"""`innerloop evaluate`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from innerloop_learner.bundle import load_bundle
from innerloop_trainer.cli.arguments import BundleArgument, DataOption, DeviceOption
from innerloop_trainer.cli.display import print_evaluation
from innerloop_trainer.cli.mistakes import mistakes_as_messages
from innerloop_trainer.cli.progress import progress_of_reading
from innerloop_trainer.data import EpisodeShape, load_source
from innerloop_trainer.data.encoded import encoded
from innerloop_trainer.devices import choose_device
from innerloop_trainer.encoder_file import open_bundled
from innerloop_trainer.evaluation import Protocol, check_source
from innerloop_trainer.evaluation import evaluate as evaluate_learner
from innerloop_trainer.results_file import check_results_file, write_results
from innerloop_trainer.runs.folder import find_bundle


def evaluate(
    bundle: BundleArgument,
    data: DataOption,
    split: Annotated[Literal["train", "validation", "test"], typer.Option(help="Where tasks come from.")] = "test",
    ways: Annotated[int | None, typer.Option(min=2, help="Classes per task; those trained for by default.")] = None,
    shots: Annotated[int | None, typer.Option(min=1, help="Examples per class; those trained for by default.")] = None,
    queries: Annotated[int, typer.Option(min=1, help="Queries per class.")] = 15,
    steps: Annotated[int | None, typer.Option(min=0, help="Inner steps.")] = None,
    episodes: Annotated[int, typer.Option(min=2, help="How many tasks.")] = 600,
    protocol: Annotated[Protocol, typer.Option(help="Transductive as many papers do.")] = "inductive",
    seed: Annotated[int, typer.Option(help="Of the episodes.")] = 0,
    device: DeviceOption = "auto",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures to this file; earlier figures there are replaced.")
    ] = None,
) -> None:
    """Measure a bundle on unseen classes: mean and 95% confidence interval over episodes."""
    with mistakes_as_messages(), progress_of_reading():
        if json_file:
            check_results_file(json_file, ("bundle", "protocol", "value"))
        target = choose_device(device)
        loaded = load_bundle(find_bundle(bundle), target)
        source = load_source(data, target)
        if loaded.manifest.encoder is not None:
            source = encoded(source, open_bundled(loaded.manifest.encoder, loaded.files, target))
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
            write_results(json_file, figures)

"""What the trainer's commands print."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from innerloop_learner.bundle import Bundle
from innerloop_learner.learner import MethodInfo
from innerloop_learner.manifest import Graphs, Manifest, Metric, TaskLimits
from innerloop_trainer.initial_parameters import InitialParameters, Start
from innerloop_trainer.run_log import Row
from innerloop_trainer.training import Report

console = Console(markup=False, highlight=False)


@contextmanager
def progress_bar(title: str, done: int, total: int, metric: str) -> Iterator[Callable[[Report], None]]:
    """A function that shows reports of training: a bar, and a line for each validation.

    Args:
        title: beside the bar.
        done: outer steps taken before.
        total: outer steps in all.
        metric: what is validated.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=14),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, refresh_per_second=4) as progress:
        task = progress.add_task(title, completed=done, total=total, figures="")

        def show(report: Report) -> None:
            iteration = report.progress.iteration
            figures = f"{report.tasks_per_second:.0f} tasks/s  loss {report.loss:.3f}"
            progress.update(task, completed=iteration, figures=figures)
            if report.row is not None:
                best = "  best" if report.progress.best_iteration == iteration else ""
                console.print(_validation(report.row, metric) + best)

        yield show


def print_start(given: InitialParameters, start: Start) -> None:
    """Print what training starts from."""
    fresh = f"; fresh: {', '.join(start.fresh)}" if start.fresh else ""
    console.print(f"Starts from {given.name}: {len(start.taken)} of its parameters{fresh}", soft_wrap=True)


def print_evaluation(metric: Metric) -> None:
    """Print a figure with its confidence interval, and how it was measured."""
    console.print(f"{_words(metric.name)} {_figure(metric)}  ({metric.protocol})")


def print_methods(infos: Sequence[MethodInfo]) -> None:
    """Print one entry per method."""
    table = Table("method", "what it is", show_lines=True)
    for info in infos:
        adapts = "adapts by gradients" if info.gradients_at_serving else "adapts without gradients"
        ways = {"no": "the trained number of ways only", "fewer": "fewer ways too", "any": "any number of ways"}
        traits = [info.family, adapts, ways[info.ways_can_change], " and ".join(info.tasks)]
        traits += ["the order of examples matters"] * info.order_matters
        table.add_row(info.name, f"{'; '.join(traits)}\n{info.paper}")
    console.print(table)


def print_bundle(bundle: Bundle) -> None:
    """Print what a bundle says of itself."""
    manifest = bundle.manifest
    learner, provenance = manifest.learner, manifest.provenance
    table = Table(show_header=False, title=manifest.name)
    rows = [
        ("version", manifest.version),
        ("method", _with_settings(learner.method, learner.settings)),
        ("backbone", _with_settings(learner.backbone, learner.backbone_settings)),
        ("parameters", f"{sum(value.numel() for value in bundle.params.values()):,}"),
        ("input", _input(manifest)),
        ("task", learner.task_kind),
        ("trained for", _trained_for(manifest.limits)),
        ("takes", _takes(manifest.limits)),
        *((("ONNX graphs", _described(manifest.graphs)),) if manifest.graphs else ()),
        ("data", provenance.data),
        ("training", f"{provenance.iterations:,} outer steps, seed {provenance.seed}"),
        ("created", provenance.created),
        ("made with", _listed(provenance.versions)),
        *((_words(metric.name), f"{_figure(metric)}\n{metric.protocol}") for metric in manifest.metrics),
    ]
    for name, text in rows:
        table.add_row(name, text)
    console.print(table)


def _validation(row: Row, metric: str) -> str:
    training, validation = (_number(value, metric) for value in (row.training, row.validation))
    interval = _number(row.validation_interval, metric)
    return f"{row.iteration:>6}  loss {row.loss:.4f}  training {training}  validation {validation} ± {interval}"


def _figure(metric: Metric) -> str:
    return f"{_number(metric.value, metric.name)} ± {_number(metric.confidence_interval, metric.name)}"


def _number(value: float, metric: str) -> str:
    return f"{value:.2%}" if metric == "accuracy" else f"{value:.4f}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _input(manifest: Manifest) -> str:
    encoder, features = manifest.encoder, manifest.learner.input
    if encoder is None:
        return f"{features.dtype} {_sizes(features.shape)}"
    taken = (
        f"texts of up to {encoder.max_tokens} tokens" if encoder.input == "texts" else f"images {_sizes(encoder.shape)}"
    )
    how = [f"{encoder.pooling} of {encoder.output}"] if encoder.pooling != "none" else [encoder.output]
    how += ["of length 1"] * encoder.normalise
    return f"{taken}\n{encoder.features} features of a frozen encoder ({', '.join(how)})"


def _sizes(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _with_settings(name: str, settings: Mapping[str, Any]) -> str:
    return f"{name} ({_listed(settings)})" if settings else name


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _trained_for(limits: TaskLimits) -> str:
    sizes = [(limits.trained_ways, "-way"), (limits.trained_shots, "-shot"), (limits.trained_steps, " inner steps")]
    return " ".join(f"{size}{word}" for size, word in sizes if size)


def _described(graphs: Graphs) -> str:
    return f"none: {graphs.refused}" if graphs.refused else f"opset {graphs.opset}"


def _takes(limits: TaskLimits) -> str:
    sizes = [(limits.max_ways, "ways"), (limits.max_steps, "inner steps")]
    return ", ".join(f"up to {size} {word}" for size, word in sizes if size) or "any task"

"""Progress of long work: a bar while data is read, a bar and a line for each validation while a run is trained."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn, track

from innerloop_trainer.cli.display import print_tried, validation_line
from innerloop_trainer.cli.interrupts import interruptible
from innerloop_trainer.cli.output import console
from innerloop_trainer.data.progress import tracking_by
from innerloop_trainer.evaluation import metric_name
from innerloop_trainer.runs.training import Report, Training
from innerloop_trainer.search import Search, SearchReport

SECONDS_BETWEEN_LINES = 60.0


def progress_of_reading() -> AbstractContextManager[None]:
    """A context in which reading and encoding data shows a bar on stderr, if that is a terminal."""
    return tracking_by(_track)


def _track(items: Sequence[Any], title: str) -> Iterable[Any]:
    return track(items, escape(title), console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


def run_with_progress(training: Training) -> bool:
    """Run with a progress bar; Ctrl-C, SIGTERM and a lost terminal stop the run at the next outer step.

    Returns:
        whether the run is finished; it is saved either way.

    Raises:
        DivergedError: training diverged.
    """
    plan, metric = training.plan, metric_name(training.source.task_kind)
    bar = progress_bar(plan.config.method, training.progress.iteration, plan.iterations, metric)
    with bar as report, interruptible() as interrupted:
        return training.run(report, interrupted)


@contextmanager
def progress_bar(title: str, done: int, total: int, metric: str) -> Iterator[Callable[[Report], None]]:
    """Give a function that shows reports of training: in a bar, or if output is no terminal in one line per minute.

    Args:
        title: text beside the bar.
        done: number of outer steps taken before.
        total: number of outer steps in all.
        metric: name of the metric that is validated.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=14),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, refresh_per_second=4) as progress:
        task = progress.add_task(title, completed=done, total=total, figures="")
        printed = time.monotonic()

        def show(report: Report) -> None:
            nonlocal printed
            iteration = report.progress.iteration
            figures = f"{report.tasks_per_second:.0f} tasks/s  loss {report.loss:.3f}"
            progress.update(task, completed=iteration, figures=figures)
            if report.row is not None:
                console.print(validation_line(report.row, metric, best=report.progress.best_iteration == iteration))
            elif progress.disable and time.monotonic() - printed > SECONDS_BETWEEN_LINES:
                console.print(f"{iteration:>6}  of {total}  {figures}")
            else:
                return
            printed = time.monotonic()

        yield show


@contextmanager
def search_progress(search: Search) -> Iterator[Callable[[SearchReport], None]]:
    """Give a function that shows reports of a search: a bar of its trials, and a line for each one that ended."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=14),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, refresh_per_second=4) as progress:
        task = progress.add_task(search.config.searcher, total=search.trials, figures="")

        def show(report: SearchReport) -> None:
            best = "" if report.best is None else f"  best {report.best.accuracy:.2%}"
            if report.tried is not None:
                print_tried(report.tried, str(report.trial))
                progress.update(task, completed=report.trial, figures=best)
            elif report.training is not None:
                step = f"step {report.training.progress.iteration}/{report.total}"
                what = f"trial {report.trial}" if report.trial else "network of all architectures"
                progress.update(task, completed=max(0, report.trial - 1), figures=f"{what}, {step}{best}")

        yield show

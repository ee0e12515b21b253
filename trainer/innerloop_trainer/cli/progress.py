"""Progress of long work: a bar in a terminal, a line now and then in a log, and a line for each validation of a run."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from innerloop_trainer.cli.display import chosen_settings, number, print_tried, validation_line
from innerloop_trainer.cli.interrupts import interruptible
from innerloop_trainer.cli.output import console, notes
from innerloop_trainer.cli.pace import Pace
from innerloop_trainer.evaluation import metric_name
from innerloop_trainer.progress import Advance, showing_by
from innerloop_trainer.runs.log import Row
from innerloop_trainer.runs.training import Report, Training
from innerloop_trainer.search import Search, SearchReport

if TYPE_CHECKING:  # tuning needs an extra of its own
    from innerloop_trainer.tuning import Tuning, TuningReport


def progress_on_stderr() -> AbstractContextManager[None]:
    """A context in which reading, encoding, testing and calibrating show on stderr how far they are.

    In a terminal that is a bar, which goes when the work is done; elsewhere a line now and then.
    """
    return showing_by(_bar if sys.stderr.isatty() else _lines)


@contextmanager
def _bar(title: str, total: int, unit: str) -> Iterator[Advance]:
    del unit
    with showing_by(None), Progress(console=notes, transient=True) as progress:
        task = progress.add_task(escape(title), total=total)
        yield lambda count: progress.advance(task, count)


@contextmanager
def _lines(title: str, total: int, unit: str) -> Iterator[Advance]:
    pace, done = Pace(0, total), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if pace.due():
            figures = f"{done:,} of {total:,} {unit}  {pace.per_second(done):,.0f}/s{pace.left(done)}"
            notes.print(f"{title}  {figures}", soft_wrap=True)

    yield advance


def run_with_progress(training: Training, log: Callable[[Row], None] | None = None) -> bool:
    """Run with a progress bar; Ctrl-C, SIGTERM and a lost terminal stop the run at the next outer step.

    Args:
        training: the run.
        log: called with the figures of each validation, if it is given.

    Returns:
        whether the run is finished; it is saved either way.

    Raises:
        DivergedError: training diverged.
    """
    plan, metric = training.plan, metric_name(training.source.task_kind)
    bar = progress_bar(plan.config.method, training.progress.iteration, plan.iterations, metric)
    with bar as show, interruptible() as interrupted:

        def report(each: Report) -> None:
            show(each)
            if log is not None and each.row is not None:
                log(each.row)

        return training.run(report, interrupted)


@contextmanager
def progress_bar(title: str, done: int, total: int, metric: str) -> Iterator[Callable[[Report], None]]:
    """Give a function that shows reports of training: in a bar, or if output is no terminal in a line now and then.

    Args:
        title: text beside the bar.
        done: number of outer steps taken before.
        total: number of outer steps in all.
        metric: name of the metric that is validated.
    """
    pace = Pace(done, total)
    with _bar_of_steps() as progress:
        task = progress.add_task(title, completed=done, total=total, figures="")

        def show(report: Report) -> None:
            iteration = report.progress.iteration
            if report.notice is not None:
                console.print(report.notice, soft_wrap=True)
            figures = f"{report.tasks_per_second:.0f} tasks/s  loss {report.loss:.3f}"
            progress.update(task, completed=iteration, figures=figures)
            if report.row is not None:
                best = report.progress.best_iteration == iteration
                speed = f"{report.tasks_per_second:.0f} tasks/s{pace.left(iteration)}" * progress.disable
                console.print(validation_line(report.row, metric, speed, best=best), soft_wrap=progress.disable)
                pace.said()
            elif progress.disable and pace.due():
                console.print(f"{iteration:>6}  of {total}  {figures}{pace.left(iteration)}", soft_wrap=True)

        yield show


@contextmanager
def search_progress(search: Search) -> Iterator[Callable[[SearchReport], None]]:
    """Give a function that shows reports of a search: a bar of its trials, and a line for each one that ended."""
    pace = Pace(len(search.tried), search.trials)
    with _bar_of_steps() as progress:
        task = progress.add_task(search.config.searcher, total=search.trials, figures="")

        def show(report: SearchReport) -> None:
            best = "" if report.best is None else f"  best {report.best.accuracy:.2%}"
            if report.tried is not None:
                print_tried(report.tried, str(report.trial))
                pace.said()
                progress.update(task, completed=report.trial, figures=best)
            elif report.training is not None:
                ended, iteration = max(0, report.trial - 1), report.training.progress.iteration
                step = f"step {iteration}/{report.total}"
                what = f"trial {report.trial}" if report.trial else "network of all architectures"
                progress.update(task, completed=ended, figures=f"{what}, {step}{best}")
                if progress.disable and pace.due():
                    figures = f"{report.training.tasks_per_second:.0f} tasks/s  loss {report.training.loss:.3f}"
                    left = pace.left(ended + iteration / report.total) if report.trial else ""
                    console.print(f"{what} of {search.trials}, {step}  {figures}{best}{left}", soft_wrap=True)

        yield show


@contextmanager
def tuning_progress(study: "Tuning") -> "Iterator[Callable[[TuningReport], None]]":
    """Give a function that shows reports of a study: a bar of its trials, and a line for each one that ended."""
    pace = Pace(len(study.tried), study.trials)
    with _bar_of_steps() as progress:
        task = progress.add_task("trials", completed=len(study.tried), total=study.trials, figures="")

        def show(report: "TuningReport") -> None:
            best = "" if report.best is None else f"  best {number(report.best.validation or 0.0, study.metric)}"
            if report.tried is not None:
                each = report.tried
                value = "" if each.validation is None else f"{number(each.validation, study.metric)}  "
                settings = chosen_settings(each.settings)
                console.print(f"{each.trial:>6}  {value}{each.failure or each.outcome}  {settings}", soft_wrap=True)
                pace.said()
                progress.update(task, completed=report.ended, figures=best)
            elif report.training is not None:
                figures = f"trial {report.trial}, step {report.training.progress.iteration}/{report.total}{best}"
                progress.update(task, completed=report.ended, figures=figures)
                if progress.disable and pace.due():
                    console.print(f"{report.ended} of {study.trials}  {figures}", soft_wrap=True)

        yield show


@contextmanager
def _bar_of_steps() -> Iterator[Progress]:
    """A bar with figures, disabled if output is no terminal. In a terminal it stands alone while it is there."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=14),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    )
    alone = showing_by(None) if console.is_terminal else nullcontext()
    with alone, Progress(*columns, console=console, disable=not console.is_terminal, refresh_per_second=4) as progress:
        yield progress

"""Makes a report."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from innerloop_trainer.calibration import Honesty
from innerloop_trainer.evaluation import evaluate, metric_name
from innerloop_trainer.report import charts
from innerloop_trainer.report.embedding import Map, embedding_map
from innerloop_trainer.report.facts import facts, figure
from innerloop_trainer.report.failures import Fit, failures, largest_errors
from innerloop_trainer.report.grids import QUERIES, Clock, Curve, curve_by_shots, curve_by_ways
from innerloop_trainer.report.page import render
from innerloop_trainer.report.reliability import Reliability, reliability
from innerloop_trainer.report.subject import Budget, Subject
from innerloop_trainer.report.trajectory import Step, trajectory

TRIED, FEWEST, FIGURES = 2, 4, 8
"""Tasks that are timed first, fewest tasks of a figure, and figures that the time should suffice for."""

Chart = dict[str, Any]
"""A chart of the page: its title, drawing, and the head and rows of the table with the same figures."""


def make_report(subject: Subject, budget: Budget) -> str:
    """Measure a model on unseen classes, and write what came of it as one HTML page.

    Args:
        subject: the model and the tasks.
        budget: how much is measured.

    Returns:
        the page, which needs no other file and no network.

    Raises:
        DataError: the data can't give tasks of the subject's size.

    Example:
        >>> from innerloop_trainer.report import QUICK
        >>> QUICK.episodes
        25
    """
    start, clock = time.monotonic(), Clock(budget)
    budget = _affordable(subject, budget)
    metric = metric_name(subject.bundle.learner.spec.task_kind)
    tasks, pairs = ((), ()) if subject.regression else failures(subject, budget)
    fits = largest_errors(subject, budget) if subject.regression else ()
    sure = reliability(subject, budget)
    steps = trajectory(subject, budget, clock)
    by_ways, by_shots = (make(subject, budget, clock) for make in (curve_by_ways, curve_by_shots))
    found = embedding_map(subject)
    manifest, headline = subject.bundle.manifest, subject.headline
    return render(
        name=manifest.name,
        method=manifest.learner.method,
        data=subject.source.description,
        metric=_words(headline.name),
        headline=figure(headline.name, headline.value, headline.confidence_interval),
        protocol=headline.protocol,
        classes=headline.classes,
        left_out=subject.left_out,
        size=_size(subject),
        seed=subject.seed,
        episodes=budget.episodes,
        few_queries=0 if subject.regression else QUERIES,
        budget_seconds=f"{budget.seconds:.0f}",
        skipped="; ".join(_skipped("ways", by_ways) + _skipped("shots", by_shots)),
        charts=[
            *_steps_charts(steps, metric),
            *_curve_chart(by_ways, "ways", metric),
            *_curve_chart(by_shots, "shots", metric),
        ],
        reliability=_reliability_chart(sure),
        honesty=_honesty_rows(sure.honesty),
        tasks=tasks,
        pairs=pairs,
        fits=[_fit_chart(fit) for fit in fits],
        regression=subject.regression,
        map=None if found is None else _map(found),
        colours=charts.COLOURS,
        facts=facts(subject.bundle),
        seconds=f"{time.monotonic() - start:.1f}",
    )


def _affordable(subject: Subject, budget: Budget) -> Budget:
    """The budget with fewer tasks for a figure, where adapting is so slow that a few figures would take all of it."""
    start = time.monotonic()
    evaluate(
        subject.bundle.learner,
        subject.bundle.params,
        subject.sampler,
        subject.shape,
        split="report",
        episodes=TRIED,
        steps=subject.steps,
    )
    tasks = budget.seconds / FIGURES * TRIED / (time.monotonic() - start)
    return replace(budget, episodes=min(budget.episodes, max(FEWEST, int(tasks))))


def _size(subject: Subject) -> str:
    shots = f"{subject.shape.shots} shot{'s' * (subject.shape.shots > 1)}"
    return shots if subject.regression else f"{subject.shape.ways} ways and {shots}"


def _skipped(what: str, curve: Curve) -> list[str]:
    return [f"{what} {', '.join(map(str, curve.left_out))}"] if curve.left_out else []


def _words(metric: str) -> str:
    return metric.replace("_", " ").capitalize()


def _curve_chart(curve: Curve, what: str, metric: str) -> list[Chart]:
    if len(curve.points) < 2:
        return []
    rows = [(each.size, figure(metric, each.mean, each.interval)) for each in curve.points]
    drawing = charts.line_chart(curve.points, what, _words(metric).lower())
    return [_chart(f"{_words(metric)} by {what}", drawing, (what, metric.replace("_", " ")), rows)]


def _steps_charts(steps: Sequence[Step], metric: str) -> list[Chart]:
    if len(steps) < 2:
        return []
    rows = [(each.steps, figure(metric, each.mean, each.interval)) for each in steps]
    losses = [(each.steps, f"{each.support_loss:.4g}", f"{each.query_loss:.4g}") for each in steps]
    across, up = "inner steps", _words(metric).lower()
    return [
        _chart(f"{_words(metric)} by inner steps", charts.steps_chart(steps, up), (across, up), rows),
        _chart("Losses while adapting", charts.losses_chart(steps), (across, "support", "queries"), losses),
    ]


def _reliability_chart(found: Reliability) -> Chart | None:
    if not found.before:
        return None
    rows = [
        (kind, f"{each.sure:.1%}", f"{each.right:.1%}", f"{each.queries:,}")
        for kind, own in (("plain", found.before), ("calibrated", found.after))
        for each in own
    ]
    head = ("probabilities", "largest, on average", "right", "queries")
    note = "On the dotted line answers are as often right as they are sure."
    return _chart("Sure and right", charts.reliability_chart(found), head, rows, note)


def _honesty_rows(found: Honesty | None) -> list[tuple[str, str]]:
    if found is None:
        return []
    rows = []
    if found.error_before is not None and found.error_after is not None:
        rows += [
            ("Calibration error of plain probabilities", f"{found.error_before:.2%}"),
            ("Calibration error of calibrated ones", f"{found.error_after:.2%}"),
        ]
    if found.separation is not None and found.false_alarms is not None:
        rows += [
            ("Unknown queries told from known ones (area under the ROC curve)", f"{found.separation:.4f}"),
            ("False alarms at 5%", f"{found.false_alarms:.2%}"),
        ]
    unit = "labels in a set" if found.error_after is not None else "wide"
    rows += [
        (f"Coverage at {asked:.0%}", f"{measured:.2%}, {found.size[asked]:.3g} {unit}")
        for asked, measured in found.coverage.items()
    ]
    return rows


def _fit_chart(fit: Fit) -> Chart:
    rows = [tuple(f"{each:.4g}" for each in row) for row in zip(*(each.tolist() for each in fit.query), strict=True)]
    title = f"Mean squared error {fit.error:.4g}"
    return _chart(title, charts.fit_chart(fit), ("input", "true", "given"), rows)


def _map(found: Map) -> dict[str, Any]:
    rows = [
        (name, "({:.3g}, {:.3g})".format(*points.mean(0)), len(points))
        for name, points in zip(found.names, found.points, strict=True)
    ]
    return {"names": found.names, "explained": found.explained, "drawing": charts.map_chart(found), "rows": rows}


def _chart(title: str, drawing: str, head: Sequence[str], rows: Sequence[Sequence[Any]], note: str = "") -> Chart:
    return {"title": title, "drawing": drawing, "head": head, "rows": rows, "note": note}

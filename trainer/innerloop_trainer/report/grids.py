"""Curves of accuracy, or of squared errors: by ways and by shots."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from innerloop_learner.learner import TaskError
from innerloop_trainer.data import DataError, EpisodeShape
from innerloop_trainer.evaluation import evaluate
from innerloop_trainer.report.subject import Budget, Subject

WAYS, SHOTS = (2, 5, 10, 20, 50), (1, 2, 5, 10)
"""Sizes that curves have points at, besides that of the headline."""

QUERIES = 5
"""Most queries of each class at the points of a curve: more tasks say more than more queries."""


@dataclass(frozen=True)
class Point:
    """A figure for one size of tasks: mean and half width of the 95% interval over tasks."""

    size: int
    mean: float
    interval: float


@dataclass(frozen=True)
class Curve:
    """Figures by size.

    Attributes:
        points: figures that were measured, in ascending order of sizes.
        left_out: sizes for which time did not suffice.
    """

    points: Sequence[Point]
    left_out: Sequence[int]


class Clock:
    """Says when the time of a budget is over."""

    def __init__(self, budget: Budget) -> None:
        self._end = time.monotonic() + budget.seconds

    @property
    def over(self) -> bool:
        """Whether nothing more should be begun."""
        return time.monotonic() > self._end


def curve_by_ways(subject: Subject, budget: Budget, clock: Clock) -> Curve:
    """The figures for tasks of more and of fewer classes, as many as model and data allow."""
    if subject.regression:
        return Curve((), ())
    most = min(subject.bundle.manifest.limits.max_ways, subject.sampler.ways_anywhere)
    sizes = sorted({subject.shape.ways, *(ways for ways in WAYS if ways <= most)})
    return _curve([(ways, replace(subject.shape, ways=ways)) for ways in sizes], subject, budget, clock)


def curve_by_shots(subject: Subject, budget: Budget, clock: Clock) -> Curve:
    """The figures for tasks of more and of fewer support examples."""
    sizes = sorted({subject.shape.shots, *SHOTS})
    return _curve([(shots, replace(subject.shape, shots=shots)) for shots in sizes], subject, budget, clock)


def _curve(sizes: Sequence[tuple[int, EpisodeShape]], subject: Subject, budget: Budget, clock: Clock) -> Curve:
    points, left_out = [], []
    for size, shape in sizes:
        few = shape if subject.regression else replace(shape, queries=min(shape.queries, QUERIES))
        if not _possible(few, subject):
            continue
        if clock.over:
            left_out.append(size)
            continue
        found = evaluate(
            subject.bundle.learner,
            subject.bundle.params,
            subject.sampler,
            few,
            split="report",
            episodes=budget.episodes,
            seed=subject.seed,
            steps=subject.steps,
        )
        points.append(Point(size, found.mean, found.confidence_interval))
    return Curve(points, left_out)


def _possible(shape: EpisodeShape, subject: Subject) -> bool:
    """Whether the model takes such tasks, and the data gives them."""
    try:
        subject.sampler.check(shape)
        subject.bundle.learner.padded_ways(shape.ways)
    except (DataError, TaskError):
        return False
    return True

"""Times both operations of one model on several engines, which take turns."""

import time
from collections.abc import Mapping
from statistics import median
from typing import Any

import numpy as np

from innerloop_server.domain.answers import Answers
from innerloop_server.domain.tasks import Array, SupportSet
from innerloop_server.engine.interface import LoadedModel

OPERATIONS = ("adapt", "predict")
WARM_UP, LEAST_CALLS = 3, 3

Round = dict[str, dict[str, float]]
"""Median milliseconds of a round's calls, by operation and engine."""


class Timing:
    """One task at a time, as a server asks for it where requests come one by one.

    Args:
        models: the same model on each engine.
        support: what to learn.
        query: what to ask [Q, *input].
        steps: inner steps.
        seconds: of each turn.
    """

    def __init__(
        self, models: Mapping[str, LoadedModel], support: SupportSet, query: Array, steps: int, seconds: float
    ) -> None:
        self._models = models
        self._support, self._query = support, query
        self._steps = steps
        self._seconds = seconds

    def difference(self) -> float:
        """The largest, over engines, of a probability to the first engine's."""
        found = [_probabilities(self._call(model)[1]) for model in self._models.values()]
        return max(float(np.abs(each - found[0]).max()) for each in found)

    def rounds(self, count: int) -> list[Round]:
        """So many rounds, in every other one of which the engines come in the opposite order."""
        for model in self._models.values():
            for _ in range(WARM_UP):
                self._call(model)
        return [self._round(list(self._models)[:: (-1) ** number]) for number in range(count)]

    def _round(self, order: list[str]) -> Round:
        turns = {engine: self._turn(self._models[engine]) for engine in order}
        return {operation: {engine: turns[engine][operation] for engine in self._models} for operation in OPERATIONS}

    def _turn(self, model: LoadedModel) -> dict[str, float]:
        """Median milliseconds of each operation."""
        times: list[tuple[float, float]] = []
        end = time.perf_counter() + self._seconds
        self._call(model)  # brings the engine's data back into the processor's caches
        while time.perf_counter() < end or len(times) < LEAST_CALLS:
            times.append(self._call(model)[0])
        return {name: 1e3 * median(each) for name, each in zip(OPERATIONS, zip(*times, strict=True), strict=True)}

    def _call(self, model: LoadedModel) -> tuple[tuple[float, float], Answers]:
        """Seconds of both operations, and the answers."""
        start = time.perf_counter()
        (adapted,) = model.adapt([self._support], self._steps, model.description.head_width(self._support.ways))
        between = time.perf_counter()
        (answers,) = model.predict([adapted.state], [self._query])
        return (between - start, time.perf_counter() - between), answers


def summary(rounds: list[Round], plain: str, other: str) -> dict[str, Any]:
    """Of each operation: median milliseconds by engine, and how many times as long `plain` takes as `other`.

    Returns:
        by operation: `milliseconds` by engine, `ratio` of the medians, and `spread`, the least and the largest ratio of
        a single round.
    """
    result = {}
    for operation in OPERATIONS:
        each = [one[operation] for one in rounds]
        milliseconds = {engine: median(one[engine] for one in each) for engine in each[0]}
        ratios = [one[plain] / one[other] for one in each]
        ratio = milliseconds[plain] / milliseconds[other]
        result[operation] = {"milliseconds": milliseconds, "ratio": ratio, "spread": [min(ratios), max(ratios)]}
    return result


def _probabilities(answers: Answers) -> Array:
    if answers.probabilities is None:
        raise TypeError("the models are classifiers")
    return answers.probabilities

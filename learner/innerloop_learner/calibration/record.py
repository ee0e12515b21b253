"""The figures that a bundle keeps so that its answers can say how sure they are."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from innerloop_learner.settings import SettingsError

FALSE_ALARMS = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Rates of false alarms that a calibration has thresholds for: shares of known queries that pass for unknown."""

COVERAGES = tuple(percent / 100 for percent in range(50, 100))
"""Coverages that a calibration has quantiles for. Between two of them, quantiles are interpolated."""

MOST_REMEMBERED = 1000
"""Sizes of tasks whose figures are remembered: interpolating takes longer than using them."""

FEATURES = 3
"""Numbers that `logits.features` makes of the logits of a query."""


@dataclass(frozen=True)
class TaskCalibration:
    """The figures for tasks of one size.

    Attributes:
        ways: classes of the tasks; zero for regression.
        shots: mean number of support examples of a class, or support examples of a task for regression.
        temperature: number that logits are divided by before the softmax; 1 for regression.
        weights: weights of the features by which known queries are told from others, see `logits.known`; empty for
            regression, or if there were no other classes to make it with.
        bias: what is added to the weighted features.
        thresholds: of `known` for each rate in FALSE_ALARMS; empty where `weights` are.
        quantiles: for each of COVERAGES, the largest nonconformity (classification) or absolute error (regression) of
            an answer that belongs into the set or interval.
        variance: mean squared error of values of a regression; None for classification, and in older bundles.

    Raises:
        ValueError: numbers are missing, not finite, or out of order.
    """

    ways: int
    shots: float
    temperature: float
    weights: Sequence[float]
    bias: float
    thresholds: Sequence[float]
    quantiles: Sequence[float]
    variance: float | None = None

    def __post_init__(self) -> None:
        for name in ("weights", "thresholds", "quantiles"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        numbers = (self.ways, self.shots, self.temperature, self.bias, self.variance or 0.0)
        if not math.isfinite(sum((*numbers, *self.weights, *self.thresholds, *self.quantiles))):
            raise ValueError("a calibration consists of finite numbers")
        if self.temperature <= 0 or self.ways < 0 or self.shots < 1 or (self.variance or 0.0) < 0:
            raise ValueError("temperature and shots are positive, and ways and variance are not negative")
        if len(self.quantiles) != len(COVERAGES) or list(self.quantiles) != sorted(self.quantiles):
            raise ValueError(f"quantiles are {len(COVERAGES)} numbers in ascending order")
        if (len(self.weights), len(self.thresholds)) not in ((0, 0), (FEATURES, len(FALSE_ALARMS))):
            raise ValueError(f"weights are {FEATURES}, and thresholds {len(FALSE_ALARMS)}")
        if list(self.thresholds) != sorted(self.thresholds):
            raise ValueError("thresholds are in ascending order")

    @property
    def knows(self) -> bool:
        """Whether it tells known queries from others."""
        return bool(self.weights)

    def quantile(self, coverage: float) -> float:
        """The quantile for a coverage, interpolated between those that are kept.

        Raises:
            ValueError: the coverage is outside of COVERAGES.
        """
        place = level_of(coverage)
        below = int(place)
        above = min(below + 1, len(COVERAGES) - 1)
        return self.quantiles[below] + (place - below) * (self.quantiles[above] - self.quantiles[below])


@dataclass(frozen=True)
class Calibration:
    """How sure a model's answers are, for tasks of several sizes.

    Attributes:
        tasks: figures by the size of tasks; those for others lie between them, see `at`.
        data: the classes that it was made with, for people, for example "validation split of omniglot:random".
        episodes: episodes that the figures of each size come from.

    Raises:
        ValueError: there are no figures.
    """

    tasks: Sequence[TaskCalibration]
    data: str
    episodes: int
    _found: dict[tuple[int, float], TaskCalibration] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "tasks", tuple(self.tasks))
        if not self.tasks:
            raise ValueError("a calibration has figures for at least one size of tasks")

    def at(self, ways: int, shots: float) -> TaskCalibration:
        """The figures for tasks of a size, interpolated linearly in the logarithms of ways and shots.

        First between shots among the sizes of the nearest ways below and above, then between these ways. Beyond the
        sizes that there are, figures stay as they are at the edge.

        Args:
            ways: classes of the task; zero for regression.
            shots: mean number of support examples of a class, or support examples of the task for regression.

        >>> of = lambda ways, shots, temperature: TaskCalibration(ways, shots, temperature, (), 0, (), (0.0,) * 50)
        >>> calibration = Calibration([of(5, 1, 1.0), of(5, 4, 4.0), of(20, 1, 1.0)], "", 200)
        >>> [round(calibration.at(*size).temperature, 6) for size in ((5, 2.0), (10, 2.0), (40, 9.0), (5, 4.0))]
        [2.0, 1.414214, 1.0, 4.0]
        """
        found = self._found.get((ways, shots))
        if found is None:
            if len(self._found) >= MOST_REMEMBERED:
                self._found.clear()
            found = replace(self._between_ways(max(ways, 1), max(shots, 1.0)), ways=ways, shots=max(shots, 1.0))
            self._found[ways, shots] = found
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"data": self.data, "episodes": self.episodes, "tasks": [asdict(each) for each in self.tasks]}

    def _between_ways(self, ways: int, shots: float) -> TaskCalibration:
        by_ways: dict[float, list[TaskCalibration]] = {}
        for each in self.tasks:
            by_ways.setdefault(max(each.ways, 1), []).append(each)
        found = {size: _between({each.shots: each for each in some}, shots) for size, some in by_ways.items()}
        return _between(found, ways)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Calibration":
        """Read plain data; fields that a later Innerloop has added are left alone.

        Raises:
            SettingsError: it is no calibration.
        """
        try:
            tasks = [
                TaskCalibration(
                    **{name: each[name] for name in TaskCalibration.__dataclass_fields__ if name != "variance"},
                    variance=each.get("variance"),
                )
                for each in data["tasks"]
            ]
            return cls(tasks, str(data["data"]), int(data["episodes"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SettingsError(f"calibration: {error}") from error


def _between(known: Mapping[float, TaskCalibration], size: float) -> TaskCalibration:
    """Figures for a size between the nearest sizes that are known, or those of the edge."""
    below = max((each for each in known if each <= size), default=min(known))
    above = min((each for each in known if each >= size), default=max(known))
    if below >= above:  # it is one of them, or beyond all
        return known[above if size >= above else below]
    return _mixed(known[below], known[above], math.log(size / below) / math.log(above / below))


def _mixed(first: TaskCalibration, second: TaskCalibration, share: float) -> TaskCalibration:
    """The figures that lie at a share of the way between two; the caller says for which size."""

    def mean(one: float, other: float) -> float:
        return one + share * (other - one)

    def means(some: Sequence[float], others: Sequence[float]) -> tuple[float, ...]:
        return tuple(map(mean, some, others)) if some and others else ()

    return TaskCalibration(
        ways=first.ways,
        shots=first.shots,
        temperature=math.exp(mean(math.log(first.temperature), math.log(second.temperature))),
        weights=means(first.weights, second.weights),
        bias=mean(first.bias, second.bias),
        thresholds=tuple(
            map(_chance, means(tuple(map(_odds, first.thresholds)), tuple(map(_odds, second.thresholds))))
        ),
        quantiles=means(first.quantiles, second.quantiles),
        variance=None if first.variance is None or second.variance is None else mean(first.variance, second.variance),
    )


def _odds(chance: float) -> float:
    return math.log(max(chance, 1e-12) / max(1 - chance, 1e-12))


def _chance(odds: float) -> float:
    return 1 / (1 + math.exp(-odds))


def level_of(coverage: float) -> float:
    """The place of a coverage among COVERAGES, from 0 to 49.

    >>> level_of(0.95), level_of(0.5)
    (45.0, 0.0)
    """
    if not COVERAGES[0] <= coverage <= COVERAGES[-1]:
        raise ValueError(f"a coverage lies between {COVERAGES[0]} and {COVERAGES[-1]}, not at {coverage}")
    return min(max(round(100 * coverage - 50, 9), 0.0), len(COVERAGES) - 1.0)

"""Do the examples of a task, each left out once, say how far its label sets should reach?

Label sets hold what is at most so improbable as a threshold that is calibrated over tasks allows. Compared with that on
classes of a validation split, of which one half calibrates and the other half is asked about, and the other way round:

    left out alone  the threshold is the quantile of the nonconformity of the task's own examples, each judged by the
                    task without it (cross-conformal: Vovk, Cross-conformal Predictors, Annals of Mathematics and
                    Artificial Intelligence 2015); 25 examples give no quantile for 99%
    shifted         the threshold over tasks moves with the mean m of these: t = q + slope * m, with the slope that
                    foretells the quantile best (smallest pinball loss) on some tasks, and q calibrated on others
                    (conformalised quantile regression: Romano, Patterson and Candes, NeurIPS 2019)

Tasks are harder or easier than others by half of their queries, and coverage is counted on the other half.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import torch
from asked import AT_ONCE, Asked, ask
from numpy.typing import NDArray

from innerloop_learner.bundle import Bundle
from innerloop_learner.calibration import COVERAGES, nonconformity
from innerloop_trainer.calibration.fit import fit_temperature, task_quantiles
from innerloop_trainer.calibration.measure import SHOWN_COVERAGES
from innerloop_trainer.data import ClassExamples, DataSource, EpisodeShape
from innerloop_trainer.seeds import generator_for

SHAPE = EpisodeShape(5, 5, 10)
SLOPES = np.arange(0, 1.51, 0.05)
RESAMPLINGS = 100

Floats = NDArray[np.floating[Any]]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Judged:
    """What a learner says of E tasks, as nonconformities or logits, by what they are made of.

    Attributes:
        queries: of each label for queries [E, Q, W].
        targets: their labels [E, Q].
        left_out: of each label for support examples by the task without them [E, S, W].
        labels: their labels [E, S].
    """

    queries: Floats
    targets: NDArray[np.int64]
    left_out: Floats
    labels: NDArray[np.int64]

    def nonconformities(self, temperature: float) -> "Judged":
        """Nonconformities in the place of logits."""
        queries, left_out = (nonconformity(logits, temperature) for logits in (self.queries, self.left_out))
        return Judged(queries, self.targets, left_out, self.labels)

    def __getitem__(self, chosen: Any) -> "Judged":
        return Judged(self.queries[chosen], self.targets[chosen], self.left_out[chosen], self.labels[chosen])

    @property
    def own(self) -> Floats:
        """Nonconformity of the label of each support example, [E, S]."""
        return _of(self.left_out, self.labels)

    def less(self, slope: float) -> Floats:
        """Nonconformity of each label for each query, less `slope` times the mean of the task's `own`, [E, Q, W]."""
        result: Floats = self.queries - slope * self.own.mean(1)[:, None, None]
        return result


def thresholds_of_left_out(bundle: Bundle, source: DataSource, episodes: int) -> dict[str, Any]:
    """Coverage, size and the like of each threshold, for each coverage asked for, over both halves of the classes.

    Args:
        bundle: model to ask.
        source: data whose validation split is halved.
        episodes: tasks for each purpose: to find slopes, to calibrate, and to measure.
    """
    asked, split = ask(bundle), source.validation
    if not isinstance(split, ClassExamples):
        raise SystemExit(f"{bundle.manifest.name} can't be measured by halves of classes")
    split = asked.read(split)
    names = list(split.names)
    halves = [_judged(asked, split.without(left), 3 * episodes) for left in (names[1::2], names[::2])]
    ways = [_one_way(halves[each], halves[1 - each], episodes) for each in (0, 1)]
    return {
        threshold: {level: _joined([way[threshold][level] for way in ways]) for level in levels}
        for threshold, levels in ways[0].items()
    }


def _judged(asked: Asked, split: ClassExamples, episodes: int) -> Judged:
    parts = []
    for start in range(0, episodes, AT_ONCE):
        tasks = min(AT_ONCE, episodes - start)
        batch = split.sample(SHAPE, tasks, generator_for(7, "left out", start, torch.device("cpu")))
        logits, targets = asked.logits(batch.support, batch.query.x), batch.targets.numpy()
        parts.append((logits, targets, asked.left_out(batch.support), batch.support.y.numpy()))
    return Judged(*map(np.concatenate, zip(*parts, strict=True)))


def _one_way(calibrating: Judged, measured: Judged, episodes: int) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Figures by threshold and coverage asked for: of the classes of one half, calibrated with the other."""
    temperature = fit_temperature(calibrating.queries[:episodes], calibrating.targets[:episodes])
    right = measured.queries.argmax(-1) == measured.targets
    judged, calibrating = measured.nonconformities(temperature), calibrating.nonconformities(temperature)
    fitting, calibrating = calibrating[:episodes], calibrating[episodes : 2 * episodes]
    found: dict[str, dict[str, Mapping[str, Any]]] = {"over tasks": {}, "shifted": {}, "left out alone": {}}
    for level in SHOWN_COVERAGES:
        slope = _slope(fitting, level)
        for name, each in (("over tasks", 0.0), ("shifted", slope)):
            threshold = _quantile(_of(calibrating.less(each), calibrating.targets), level)
            found[name][f"{level:.0%}"] = _figures(judged.less(each) <= threshold, judged.targets, right, each)
        rank = ceil(level * (judged.own.shape[1] + 1))
        if rank <= judged.own.shape[1]:
            alone = np.sort(judged.own, 1)[:, rank - 1, None, None]
            found["left out alone"][f"{level:.0%}"] = _figures(judged.queries <= alone, judged.targets, right)
    return found


def _slope(fitting: Judged, level: float) -> float:
    """The slope with which the mean of left-out examples foretells the quantile of true labels best."""

    def pinball(slope: float) -> float:
        rest = _of(fitting.less(slope), fitting.targets)
        rest = rest - np.quantile(rest, level)
        return float(np.maximum(level * rest, (level - 1) * rest).mean())

    return float(min(SLOPES, key=pinball))


def _quantile(scores: Floats, level: float) -> float:
    return task_quantiles(scores)[COVERAGES.index(level)]


def _figures(sets: Flags, targets: NDArray[np.int64], right: Flags, slope: float = 0.0) -> Mapping[str, Any]:
    """Coverage with its interval, size, coverage of the fifths of tasks with the least and the most right, slope."""
    covered, size = _of(sets, targets), float(sets.sum(-1).mean())
    of_task, random = covered.mean(1), np.random.default_rng(0)
    means = [of_task[random.integers(0, len(of_task), len(of_task))].mean() for _ in range(RESAMPLINGS)]
    by_right, fifth = np.argsort(right[:, ::2].mean(1), kind="stable"), len(right) // 5
    fifths = {"hardest": by_right[:fifth], "easiest": by_right[-fifth:]}
    return {
        "coverage": [float(of_task.mean()), 1.96 * float(np.std(means))],
        "size": size,
        **{name: float(covered[chosen][:, 1::2].mean()) for name, chosen in fifths.items()},
        "slope": slope,
    }


def _joined(ways: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Figures of both ways: each coverage and slope, and the means of the others."""
    means = {name: round(float(np.mean([way[name] for way in ways])), 5) for name in ("size", "hardest", "easiest")}
    coverages = [[round(value, 5) for value in way["coverage"]] for way in ways]
    return {"coverages": coverages, **means, "slopes": [round(way["slope"], 2) for way in ways]}


def _of(values: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[Any]:
    """The values [E, N, W] of one label each [E, N]."""
    result: NDArray[Any] = np.take_along_axis(values, labels[..., None], -1)[..., 0]
    return result

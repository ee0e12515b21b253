"""Finds where a model fails: its hardest tasks, and the classes that it takes for each other."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from innerloop_learner.tasks import Episodes
from innerloop_trainer.data.class_examples import RawEpisodes
from innerloop_trainer.evaluation import score
from innerloop_trainer.report.originals import Original, original
from innerloop_trainer.report.subject import Budget, Subject

MOST_SHOTS, MOST_WRONG, MOST_PAIRS = 5, 12, 6
"""Most support examples of a class, wrong answers of a task, and pairs of classes that are shown."""


@dataclass(frozen=True)
class ShownClass:
    """A class of a task, and the first of its support examples."""

    name: str
    support: Sequence[Original]


@dataclass(frozen=True)
class WrongAnswer:
    """A query, its class, and the class that the model gave."""

    query: Original | None
    true: str
    given: str


@dataclass(frozen=True)
class HardTask:
    """A task with many wrong answers.

    Attributes:
        accuracy: share of its queries that are answered rightly.
        classes: its classes with their support examples; those without wrong answers are left out.
        wrong: the first of its wrong answers.
        further: number of wrong answers that are not shown.
    """

    accuracy: float
    classes: Sequence[ShownClass]
    wrong: Sequence[WrongAnswer]
    further: int


@dataclass(frozen=True)
class Confusion:
    """Two classes that are taken for each other.

    Attributes:
        names: of both classes.
        examples: a support example of each; empty where there is nothing to show.
        query: a query of the first that was taken for the second; None likewise.
        wrong: queries of either that were taken for the other.
        asked: queries of either in tasks that have both classes.
    """

    names: tuple[str, str]
    examples: Sequence[Original]
    query: Original | None
    wrong: int
    asked: int


@dataclass(frozen=True)
class Fit:
    """A regression task with large errors.

    Attributes:
        error: mean squared error of its queries.
        support, query: inputs [N] or None where inputs are no single numbers, true values [N] and, of queries, values
            that the model gave [N].
    """

    error: float
    support: tuple[Tensor, Tensor]
    query: tuple[Tensor, Tensor, Tensor]


class _Answered(NamedTuple):
    """Tasks with the model's answers: scores [E], labels [E, Q] given and true, and classes [E, W]."""

    scores: Tensor
    given: Tensor
    true: Tensor
    classes: Tensor


def failures(subject: Subject, budget: Budget) -> tuple[Sequence[HardTask], Sequence[Confusion]]:
    """The hardest of some tasks, and the pairs of classes that are most often taken for each other in them."""
    answered = _answer(subject, budget.episodes)
    hardest = [task for task in answered.scores.argsort(stable=True).tolist() if answered.scores[task] < 1]
    shown = hardest[: budget.tasks]
    pairs = _confused(answered)
    places = [place for _, _, place, _, _ in pairs]
    raw = _raw_tasks(subject, budget.episodes, [*shown, *(task for task, _ in places)])
    tasks = [_hard_task(task, answered, subject, raw.get(task)) for task in shown]
    return tasks, [_confusion(pair, answered, subject, raw.get(pair[2][0])) for pair in pairs]


@torch.no_grad()
def largest_errors(subject: Subject, budget: Budget) -> Sequence[Fit]:
    """The regression tasks with the largest errors, of one input and one value each; none where there are more."""
    spec = subject.bundle.learner.spec
    if spec.target_size != 1 or torch.Size(spec.input.shape).numel() != 1:
        return ()
    fits = []
    for batch, outputs in _outputs(subject, budget.episodes):
        errors = score(outputs, batch)
        for task in range(len(errors)):
            support = batch.support.x[task].flatten().cpu(), batch.support.y[task].flatten().cpu()
            x, true, given = (each[task].flatten().cpu() for each in (batch.query.x, batch.targets, outputs))
            fits.append(Fit(float(errors[task]), support, (x, true, given)))
    return sorted(fits, key=lambda fit: -fit.error)[: budget.tasks]


def _outputs(subject: Subject, episodes: int) -> Iterable[tuple[Episodes, Tensor]]:
    learner, params = subject.bundle.learner, subject.bundle.params
    for tasks, generator in subject.batches(episodes):
        batch = subject.sampler.sample(subject.shape, tasks, generator)
        support = replace(batch.support, max_ways=learner.padded_ways(batch.support.max_ways))
        yield batch, learner.predict(params, learner.adapt(params, support, subject.steps).state, batch.query)


@torch.no_grad()
def _answer(subject: Subject, episodes: int) -> _Answered:
    parts = []
    for batch, outputs in _outputs(subject, episodes):
        # Without labels each image is a class of its own, of which there is no name to tell.
        classes = torch.full((len(outputs), subject.shape.ways), -1) if batch.classes is None else batch.classes
        parts.append(_Answered(score(outputs, batch), outputs.argmax(-1), batch.targets, classes))
    return _Answered(*(torch.cat(each).cpu() for each in zip(*parts, strict=True)))


def _raw_tasks(subject: Subject, episodes: int, wanted: Sequence[int]) -> dict[int, tuple[RawEpisodes, int]]:
    """Raw examples of some tasks, by their numbers, and the row of each in its batch."""
    found: dict[int, tuple[RawEpisodes, int]] = {}
    start = 0
    for tasks, generator in subject.batches(episodes):
        here = [task for task in wanted if start <= task < start + tasks]
        if here and subject.originals is not None:
            raw = subject.originals.sample_raw(subject.shape, tasks, generator)
            found |= {task: (raw, task - start) for task in here}
        start += tasks
    return found


def _hard_task(task: int, answered: _Answered, subject: Subject, raw: tuple[RawEpisodes, int] | None) -> HardTask:
    given, true = answered.given[task], answered.true[task]
    names = _names(answered.classes[task], subject)
    wrong = (given != true).nonzero().flatten().tolist()
    involved = sorted({int(label) for query in wrong for label in (given[query], true[query])})
    return HardTask(
        float(answered.scores[task]),
        [ShownClass(names[label], _support(label, subject, raw)) for label in involved],
        [WrongAnswer(_query(each, subject, raw), names[true[each]], names[given[each]]) for each in wrong[:MOST_WRONG]],
        max(0, len(wrong) - MOST_WRONG),
    )


_Pair = tuple[int, int, tuple[int, int], int, int]
"""Two classes, a task and a query of the first that was taken for the second, how often that happened either way, and
how many queries there were."""


def _confused(answered: _Answered) -> list[_Pair]:
    """The pairs of classes that are most often taken for each other."""
    if (answered.classes < 0).any():
        return []
    wrong, first = Counter[frozenset[int]](), dict[frozenset[int], tuple[int, int, tuple[int, int]]]()
    for task, query in (answered.given != answered.true).nonzero().tolist():
        classes = answered.classes[task]
        true, given = int(classes[answered.true[task, query]]), int(classes[answered.given[task, query]])
        pair = frozenset((true, given))
        wrong[pair] += 1
        first.setdefault(pair, (true, given, (task, query)))
    together: defaultdict[frozenset[int], int] = defaultdict(int)
    per_class = answered.true.shape[1] // answered.classes.shape[1]
    most = wrong.most_common(MOST_PAIRS)
    for classes in answered.classes.tolist():
        for pair, _ in most:
            together[pair] += 2 * per_class if pair <= set(classes) else 0
    return [(*first[pair], times, together[pair]) for pair, times in most]


def _confusion(pair: _Pair, answered: _Answered, subject: Subject, raw: tuple[RawEpisodes, int] | None) -> Confusion:
    true, given, (task, query), wrong, asked = pair
    classes = answered.classes[task].tolist()
    examples = [each for name in (true, given) for each in _support(classes.index(name), subject, raw)[:1]]
    names = subject.sampler.names[true], subject.sampler.names[given]
    return Confusion(names, examples, _query(query, subject, raw), wrong, asked)


def _names(classes: Tensor, subject: Subject) -> list[str]:
    return [
        f"class {label}" if name < 0 else subject.sampler.names[name] for label, name in enumerate(classes.tolist())
    ]


def _support(label: int, subject: Subject, raw: tuple[RawEpisodes, int] | None) -> list[Original]:
    if raw is None:
        return []
    episodes, row = raw
    own = (episodes.support_labels[row] == label).nonzero().flatten().tolist()
    return [original(episodes.support[row, place], subject) for place in own[:MOST_SHOTS]]


def _query(place: int, subject: Subject, raw: tuple[RawEpisodes, int] | None) -> Original | None:
    return None if raw is None else original(raw[0].query[raw[1], place], subject)

"""Computing a batch: what happens on the engine's threads."""

import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from innerloop_server.engine.interface import Answers, Array, LoadedModel, MemoryFullError, TaskState
from innerloop_server.errors import DeadlinePassedError, OverloadedError
from innerloop_server.scheduling.buckets import query_bucket
from innerloop_server.scheduling.job import AdaptJob, AnyJob, Computed, Learnt, Operation, PredictJob

MEMORY_RETRY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one job: its result, or why there is none."""

    job: AnyJob
    result: Computed[Any] | Exception


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """What became of a batch.

    Attributes:
        outcomes: one per job.
        computed: how many jobs were computed together; the rest were dropped at the last moment.
        started, ended: when, on the monotonic clock.
    """

    outcomes: Sequence[Outcome]
    computed: int
    started: float
    ended: float


def run_batch(jobs: Sequence[AnyJob]) -> BatchOutcome:
    """Compute jobs of one bucket together; when that fails, each by itself, so that only the culprit fails.

    A batch may have waited for the one before it: jobs that became useless meanwhile are dropped here.
    """
    started = time.monotonic()
    wanted = [job for job in jobs if not job.abandoned and not job.deadline.passed]
    late = [Outcome(job, DeadlinePassedError()) for job in set(jobs).difference(wanted)]
    outcomes = _together(wanted) if wanted else []
    return BatchOutcome([*outcomes, *late], len(wanted), started, time.monotonic())


def _together(jobs: Sequence[AnyJob]) -> list[Outcome]:
    started = time.monotonic()
    try:
        values, seconds = _adapt(jobs) if isinstance(jobs[0], AdaptJob) else _predict(jobs)
        return [
            Outcome(job, Computed(value, started - job.submitted, seconds))
            for job, value in zip(jobs, values, strict=True)
        ]
    except Exception as error:
        if len(jobs) == 1:
            full = isinstance(error, MemoryFullError)
            return [Outcome(jobs[0], OverloadedError(MEMORY_RETRY_SECONDS) if full else error)]
        return [outcome for job in jobs for outcome in _together([job])]


def _adapt(jobs: Sequence[AnyJob]) -> tuple[Sequence[Learnt], Mapping[Operation, float]]:
    adapts = cast("Sequence[AdaptJob]", jobs)
    first = adapts[0]
    model, started = first.model.loaded, time.monotonic()
    tasks = model.adapt([job.support for job in adapts], first.steps, first.width)
    adapted = time.monotonic()
    if first.query is None:  # then none of the bucket brings queries
        return [Learnt(task, None) for task in tasks], {Operation.ADAPT: adapted - started}
    answers = _answer(model, [(task.state, job.query) for task, job in zip(tasks, adapts, strict=True)])
    seconds = {Operation.ADAPT: adapted - started, Operation.PREDICT: time.monotonic() - adapted}
    return [Learnt(task, given) for task, given in zip(tasks, answers, strict=True)], seconds


def _answer(model: LoadedModel, asked: Sequence[tuple[TaskState, Array | None]]) -> list[Answers]:
    """Answers to each state's queries; those of like size are computed together."""
    buckets: dict[Hashable, list[int]] = {}
    for index, (_, query) in enumerate(asked):
        if query is not None:
            buckets.setdefault(query_bucket(query), []).append(index)
    answers: dict[int, Answers] = {}
    for members in buckets.values():
        states = [asked[index][0] for index in members]
        queries = [query for _, query in (asked[index] for index in members) if query is not None]
        answers.update(zip(members, model.predict(states, queries), strict=True))
    return [answers[index] for index in range(len(asked))]


def _predict(jobs: Sequence[AnyJob]) -> tuple[Sequence[Answers], Mapping[Operation, float]]:
    predicts = cast("Sequence[PredictJob]", jobs)
    started = time.monotonic()
    model = predicts[0].model.loaded
    answers = model.predict([job.state for job in predicts], [job.query for job in predicts])
    return answers, {Operation.PREDICT: time.monotonic() - started}

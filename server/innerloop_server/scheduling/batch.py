"""Computing a batch, whoever does it."""

import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from innerloop_server.domain.answers import Answers
from innerloop_server.domain.errors import DeadlinePassedError, OverloadedError
from innerloop_server.domain.tasks import Array, SupportSet
from innerloop_server.domain.timings import Operation
from innerloop_server.engine.interface import (
    AdaptedTask,
    AwaitedModel,
    LoadedModel,
    MemoryFullError,
    RemoteError,
    TaskState,
)
from innerloop_server.engine.waiting import Waiting, finish
from innerloop_server.scheduling.buckets import query_bucket
from innerloop_server.scheduling.job import AdaptJob, AnyJob, Computed, Learnt, PredictJob

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
    """Compute jobs of one bucket on this thread, together; when that fails, each by itself: only the culprit fails."""
    return finish(_run(jobs, _here(jobs[0].model)))


def run_batch_elsewhere(jobs: Sequence[AnyJob], lane: int) -> Waiting[BatchOutcome] | None:
    """As `run_batch`, in the process behind a lane; None where the lane's thread shall compute."""
    remote = jobs[0].model.remote(lane, len(jobs), sum(job.size_bytes for job in jobs))
    return None if remote is None else _run(jobs, remote)


def _here(model: LoadedModel) -> AwaitedModel:
    """A model's own functions as coroutines, which wait for nothing."""

    async def adapt(tasks: Sequence[SupportSet], steps: int, width: int) -> list[AdaptedTask]:
        return model.adapt(tasks, steps, width)

    async def predict(states: Sequence[TaskState], queries: Sequence[Array]) -> list[Answers]:
        return model.predict(states, queries)

    return AwaitedModel(adapt, predict)


async def _run(jobs: Sequence[AnyJob], model: AwaitedModel) -> BatchOutcome:
    """Compute jobs of one bucket.

    A batch may have waited for the one before it: jobs that became useless meanwhile are dropped here.
    """
    started = time.monotonic()
    wanted = [job for job in jobs if not job.abandoned and not job.deadline.passed]
    late = [Outcome(job, DeadlinePassedError()) for job in set(jobs).difference(wanted)]
    outcomes = await _together(wanted, model) if wanted else []
    return BatchOutcome([*outcomes, *late], len(wanted), started, time.monotonic())


async def _together(jobs: Sequence[AnyJob], model: AwaitedModel) -> list[Outcome]:
    started = time.monotonic()
    try:
        compute = _adapt if isinstance(jobs[0], AdaptJob) else _predict
        values, seconds = await compute(jobs, model)
        return [
            Outcome(job, Computed(value, started - job.submitted, seconds))
            for job, value in zip(jobs, values, strict=True)
        ]
    except RemoteError:
        raise
    except Exception as error:
        if len(jobs) == 1:
            full = isinstance(error, MemoryFullError)
            return [Outcome(jobs[0], OverloadedError(MEMORY_RETRY_SECONDS) if full else error)]
        return [outcome for job in jobs for outcome in await _together([job], model)]


async def _adapt(jobs: Sequence[AnyJob], model: AwaitedModel) -> tuple[Sequence[Learnt], Mapping[Operation, float]]:
    adapts = cast("Sequence[AdaptJob]", jobs)
    first = adapts[0]
    started = time.monotonic()
    tasks = await model.adapt([job.support for job in adapts], first.steps, first.width)
    adapted = time.monotonic()
    if first.query is None:  # then none of the bucket brings queries
        return [Learnt(task, None) for task in tasks], {Operation.ADAPT: adapted - started}
    answers = await _answer(model, [(task.state, job.query) for task, job in zip(tasks, adapts, strict=True)])
    seconds = {Operation.ADAPT: adapted - started, Operation.PREDICT: time.monotonic() - adapted}
    return [Learnt(task, given) for task, given in zip(tasks, answers, strict=True)], seconds


async def _answer(model: AwaitedModel, asked: Sequence[tuple[TaskState, Array | None]]) -> list[Answers]:
    """Answers to each state's queries; those of like size are computed together."""
    buckets: dict[Hashable, list[int]] = {}
    for index, (_, query) in enumerate(asked):
        if query is not None:
            buckets.setdefault(query_bucket(query), []).append(index)
    answers: dict[int, Answers] = {}
    for members in buckets.values():
        states = [asked[index][0] for index in members]
        queries = [query for _, query in (asked[index] for index in members) if query is not None]
        answers.update(zip(members, await model.predict(states, queries), strict=True))
    return [answers[index] for index in range(len(asked))]


async def _predict(jobs: Sequence[AnyJob], model: AwaitedModel) -> tuple[Sequence[Answers], Mapping[Operation, float]]:
    predicts = cast("Sequence[PredictJob]", jobs)
    started = time.monotonic()
    answers = await model.predict([job.state for job in predicts], [job.query for job in predicts])
    return answers, {Operation.PREDICT: time.monotonic() - started}

"""Requests of one bucket to a batch for a lane, and what the batch gave to a result for each request."""

import time
from collections.abc import Hashable, Sequence
from typing import Any, cast

from innerloop_learner.run_limit import RunTooLongError
from innerloop_server.domain.errors import DeadlinePassedError, OverloadedError
from innerloop_server.engine.interface import (
    AbandonedError,
    AdaptBatch,
    Batch,
    BatchResult,
    ExtendBatch,
    LeaveOutBatch,
    PredictBatch,
    QueryGroup,
)
from innerloop_server.engine.memory_full import is_memory_full
from innerloop_server.scheduling.buckets import query_bucket
from innerloop_server.scheduling.job import AdaptJob, AnyJob, Computed, ExtendJob, LeaveOutJob, PredictJob
from innerloop_server.scheduling.lanes import Lane

MEMORY_RETRY_SECONDS = 0.5
"""Seconds after which a client should retry a request that found no memory; others may have ended by then."""


async def compute(lane: Lane, jobs: Sequence[AnyJob]) -> list[Computed[Any] | Exception]:
    """Compute jobs of one bucket together; when that fails, each by itself, so that only the culprit fails.

    Where memory is full, they are halved instead, since there may be room for fewer. A batch ends early when nobody
    waits for any of them any more, or all deadlines have passed.

    Returns:
        for each job its result, or why there is none.
    """
    started, parts = time.monotonic(), [[job] for job in jobs]
    try:
        result = await lane.compute(jobs[0].model, batch_of(jobs))
        return [
            Computed(value, started - job.submitted, result.encoder_seconds, result.seconds)
            for job, value in zip(jobs, _values(jobs[0], result), strict=True)
        ]
    except AbandonedError:
        return [DeadlinePassedError() for _ in jobs]
    except RunTooLongError as error:
        return [error] * len(jobs)  # each by itself would hold the lane as long again
    except Exception as error:
        full = is_memory_full(error)
        if len(jobs) == 1:
            return [OverloadedError(MEMORY_RETRY_SECONDS) if full else error]
        if full:
            half = len(jobs) // 2
            parts = [[*jobs[:half]], [*jobs[half:]]]
    # The error is gone by now, and with it what it held of the failed batch.
    return [result for part in parts for result in await compute(lane, part)]


def batch_of(jobs: Sequence[AnyJob]) -> Batch:
    """Jobs of one bucket as what a model is asked to compute."""
    if isinstance(jobs[0], PredictJob):
        predicts = cast("Sequence[PredictJob]", jobs)
        return PredictBatch([job.state for job in predicts], [job.query for job in predicts])

    def abandoned() -> bool:
        return all(job.abandoned or job.deadline.passed for job in jobs)

    if isinstance(jobs[0], ExtendJob):
        extends, first = cast("Sequence[ExtendJob]", jobs), jobs[0]
        states, tasks = [job.state for job in extends], [job.support for job in extends]
        return ExtendBatch(states, tasks, first.steps, first.width, abandoned)
    if isinstance(jobs[0], LeaveOutJob):
        leaving, alike = cast("Sequence[LeaveOutJob]", jobs), jobs[0]
        tasks, parts = [job.support for job in leaving], [job.parts for job in leaving]
        return LeaveOutBatch(tasks, parts, alike.steps, alike.width, abandoned)
    adapts = cast("Sequence[AdaptJob]", jobs)
    tasks = [job.support for job in adapts]
    return AdaptBatch(tasks, adapts[0].steps, adapts[0].width, _groups(adapts), abandoned)


def _groups(jobs: Sequence[AdaptJob]) -> list[QueryGroup]:
    """The queries that jobs bring, those of like size together."""
    groups: dict[Hashable, QueryGroup] = {}
    for index, job in enumerate(jobs):
        if job.query is not None:
            group = groups.setdefault(query_bucket(job.query), QueryGroup([], []))
            group.members.append(index)
            group.queries.append(job.query)
    return list(groups.values())


def _values(first: AnyJob, result: BatchResult) -> Sequence[Any]:
    """The result of each job: answers, or the adapted task with answers to the queries of the job, if any."""
    if isinstance(first, (LeaveOutJob, PredictJob)):
        return result.answers
    if isinstance(first, ExtendJob):
        return result.adapted
    if first.query is None:  # then none of the bucket brings queries
        return [(task, None) for task in result.adapted]
    return list(zip(result.adapted, result.answers, strict=True))

"""Computing a batch: what happens on the engine's thread."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from innerloop_server.engine.interface import AdaptedTask, Answers
from innerloop_server.errors import DeadlinePassedError
from innerloop_server.scheduling.job import AdaptJob, AnyJob, Computed, PredictJob


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
        seconds: from start to end.
    """

    outcomes: Sequence[Outcome]
    computed: int
    seconds: float


def run_batch(jobs: Sequence[AnyJob]) -> BatchOutcome:
    """Compute jobs of one bucket together; when that fails, each by itself, so that only the culprit fails.

    A batch may have waited for the one before it: jobs that became useless meanwhile are dropped here.
    """
    started = time.monotonic()
    wanted = [job for job in jobs if not job.abandoned and not job.deadline.passed]
    late = [Outcome(job, DeadlinePassedError()) for job in jobs if job not in wanted]
    outcomes = _together(wanted) if wanted else []
    return BatchOutcome([*outcomes, *late], len(wanted), time.monotonic() - started)


def _together(jobs: Sequence[AnyJob]) -> list[Outcome]:
    started = time.monotonic()
    try:
        values = _compute(jobs)
    except Exception as error:
        if len(jobs) == 1:
            return [Outcome(jobs[0], error)]
        return [outcome for job in jobs for outcome in _together([job])]
    seconds = time.monotonic() - started
    return [
        Outcome(job, Computed(value, started - job.submitted, seconds)) for job, value in zip(jobs, values, strict=True)
    ]


def _compute(jobs: Sequence[AnyJob]) -> Sequence[AdaptedTask] | Sequence[Answers]:
    model = jobs[0].model.loaded
    if isinstance(jobs[0], AdaptJob):
        adapts = cast("Sequence[AdaptJob]", jobs)
        return model.adapt([job.support for job in adapts], jobs[0].steps, jobs[0].width)
    predicts = cast("Sequence[PredictJob]", jobs)
    return model.predict([job.state for job in predicts], [job.query for job in predicts])

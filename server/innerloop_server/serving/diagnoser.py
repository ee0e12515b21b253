"""Finds out which examples of a support set may have a wrong label, by leaving each of them out."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace

import numpy as np

from innerloop_learner.diagnosis import MOST_PARTS, Diagnosis, diagnose, left_out_parts
from innerloop_server.domain.answers import Answers
from innerloop_server.domain.callers import Caller
from innerloop_server.domain.deadline import Deadline
from innerloop_server.domain.tasks import AdaptTask, Array, Parts, SupportSet
from innerloop_server.engine.interface import LoadedModel
from innerloop_server.scheduling.policy import parts_at_once
from innerloop_server.serving.confidence import sure_answers

AT_ONCE = 32
"""Most jobs of one diagnosis that wait for the device together: enough for large batches, and few beside what a server
lets wait (512 requests of a model by default)."""

AT_ONCE_BYTES = 64 * 2**20
"""About how many bytes of examples these jobs may take together, in which every example stands many times."""

Answer = Callable[[Caller, LoadedModel, AdaptTask, Parts, int, Deadline], Awaitable[list[Answers]]]
"""Answers the examples of each part of a task without them, with their calibrations, as one job; the number is that of
jobs which the same request asks for later."""

Encode = Callable[[Caller, LoadedModel, Array, Deadline], Awaitable[Array]]
"""Computes the features of inputs of a model, if there is an encoder in front of it."""


class Diagnoser:
    """Has a model answer the examples of a support set by all but these, until each was left out once.

    Jobs are the caller's like any other: they wait for its turn and share batches. Where a model answers from features
    that are computed once (`LoadedModel.feature_size`), a job is as many parts as keep others waiting for a moment
    only, mostly all of them. Otherwise it is one part, and the model adapts anew without it.

    Args:
        answer: computes them.
        encode: computes the features of the examples, once for all tasks.
        waiting: most jobs of one model that a caller may have waiting, where it has no limit of its own; None for any
            number.
    """

    def __init__(self, answer: Answer, encode: Encode, waiting: int | None) -> None:
        self._answer = answer
        self._encode = encode
        self._waiting = waiting

    async def diagnose(self, caller: Caller, model: LoadedModel, task: AdaptTask, deadline: Deadline) -> Diagnosis:
        """What the examples of a classification task say about each other.

        Raises:
            OverloadedError, DeadlinePassedError: it would take too long.
            DivergedError: an answer is not finite.
        """
        jobs = jobs_of(model, task)
        if jobs:
            features = await self._encode(caller, model, task.support.x, deadline)
            model, task = model.head, replace(task, support=replace(task.support, x=features))
        probabilities = np.full((task.support.size, task.support.ways), np.nan)
        fit = max(AT_ONCE_BYTES // max(task.support.x.nbytes, 1), 1)
        turns = asyncio.Semaphore(min(AT_ONCE, fit, caller.limits.waiting or self._waiting or AT_ONCE))

        async def ask(number: int, parts: Parts) -> None:
            async with turns:
                answered = await self._answer(caller, model, task, parts, len(jobs) - number - 1, deadline)
                for part, answers in zip(parts, answered, strict=True):
                    probabilities[part] = sure_answers(answers, None).probabilities

        asked = [asyncio.ensure_future(ask(number, parts)) for number, parts in enumerate(jobs)]
        try:
            await asyncio.gather(*asked)
        finally:
            for each in asked:
                each.cancel()
        return diagnose(task.support.y, probabilities)


def jobs_of(model: LoadedModel, task: AdaptTask) -> list[Parts]:
    """The parts of a support set that are left out one after the other, by the jobs that compute them."""
    parts = left_out_parts(task.support.y)
    at_once = _at_once(model, task.support.size, task.steps)
    return [parts[start : start + at_once] for start in range(0, len(parts), at_once)]


def work_of(model: LoadedModel, task: AdaptTask) -> int:
    """Examples that a diagnosis reads: all of them in each of its jobs."""
    return len(jobs_of(model, task)) * task.support.size


def most_work(model: LoadedModel, size: int) -> int:
    """The most that `work_of` a task of so many examples can be."""
    at_once = _at_once(model, size, model.description.traits.max_steps)
    return math.ceil(min(size, MOST_PARTS) / at_once) * size


def without(task: AdaptTask, parts: Parts) -> AdaptTask:
    """A task without some parts of its examples."""
    support, places = task.support, np.concatenate(parts)
    rest = SupportSet(np.delete(support.x, places, axis=0), np.delete(support.y, places), support.ways)
    return replace(task, support=rest)


def _at_once(model: LoadedModel, size: int, steps: int) -> int:
    """How many parts of so many examples make a job."""
    feature_size = model.head.feature_size
    return parts_at_once(size * max(steps, 1) * feature_size) if feature_size else 1

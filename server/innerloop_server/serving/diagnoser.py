"""Finds out which examples of a support set may have a wrong label, by leaving each of them out."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from innerloop_learner.diagnosis import MOST_PARTS, Diagnosis, diagnose, left_out_parts
from innerloop_server.domain.answers import Answers
from innerloop_server.domain.callers import Caller
from innerloop_server.domain.deadline import Deadline
from innerloop_server.domain.tasks import AdaptTask, Array, SupportSet
from innerloop_server.engine.interface import LoadedModel
from innerloop_server.serving.confidence import sure_answers

AT_ONCE = 32
"""Most tasks of one diagnosis that wait for the device together: enough for large batches, and few beside what a server
lets wait (512 requests of a model by default)."""

AT_ONCE_BYTES = 64 * 2**20
"""About how many bytes of examples these tasks may take together, in which every example stands many times."""

Answer = Callable[[Caller, LoadedModel, AdaptTask, Array, int, Deadline], Awaitable[Answers]]
"""Adapts to a task and answers queries; the number is that of tasks which the same request asks for later."""

Encode = Callable[[Caller, LoadedModel, Array, Deadline], Awaitable[Array]]
"""Computes the features of inputs of a model, if there is an encoder in front of it."""


class Diagnoser:
    """Has a model adapt to all examples but some, and answer these, until each was left out once.

    The tasks are jobs of the caller as any other: they wait for its turn and share batches.

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
        parts = left_out_parts(task.support.y)
        if parts:
            features = await self._encode(caller, model, task.support.x, deadline)
            model, task = model.head, replace(task, support=replace(task.support, x=features))
        probabilities = np.full((task.support.size, task.support.ways), np.nan)
        fit = max(AT_ONCE_BYTES // max(task.support.x.nbytes, 1), 1)
        turns = asyncio.Semaphore(min(AT_ONCE, fit, caller.limits.waiting or self._waiting or AT_ONCE))

        async def ask(number: int, part: NDArray[np.intp]) -> None:
            async with turns:
                rest = _without(task, part)
                later = len(parts) - number - 1
                answers = await self._answer(caller, model, rest, task.support.x[part], later, deadline)
                probabilities[part] = sure_answers(answers, None).probabilities

        asked = [asyncio.ensure_future(ask(number, part)) for number, part in enumerate(parts)]
        try:
            await asyncio.gather(*asked)
        finally:
            for each in asked:
                each.cancel()
        return diagnose(task.support.y, probabilities)


def work_of(task: AdaptTask) -> int:
    """Examples that a diagnosis reads: all of them in each of its tasks."""
    return len(left_out_parts(task.support.y)) * task.support.size


def most_work(size: int) -> int:
    """The most that `work_of` a task of so many examples can be."""
    return min(size, MOST_PARTS) * size


def _without(task: AdaptTask, part: NDArray[np.intp]) -> AdaptTask:
    support = task.support
    rest = SupportSet(np.delete(support.x, part, axis=0), np.delete(support.y, part), support.ways)
    return replace(task, support=rest)

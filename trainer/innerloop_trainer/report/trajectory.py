"""How losses and accuracy move while a model adapts, step by step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from innerloop_learner.losses import task_loss
from innerloop_learner.tasks import Query
from innerloop_trainer.evaluation import confidence_interval, score
from innerloop_trainer.report.grids import Clock
from innerloop_trainer.report.subject import Budget, Subject

STEPS = (0, 1, 2, 3, 5, 10, 20, 50, 100, 200)
"""Numbers of inner steps that are looked at, besides the usual one, up to twice as many as usual."""


@dataclass(frozen=True)
class Step:
    """Figures after so many inner steps, means over tasks.

    Attributes:
        steps: number of inner steps.
        mean, interval: accuracy, or mean squared error, of queries, and half width of its 95% interval.
        support_loss, query_loss: outer loss of support examples and of queries.
    """

    steps: int
    mean: float
    interval: float
    support_loss: float
    query_loss: float


@torch.no_grad()
def trajectory(subject: Subject, budget: Budget, clock: Clock) -> Sequence[Step]:
    """Figures after each of some numbers of steps; none for methods without steps, fewer if time does not suffice."""
    learner = subject.bundle.learner
    if not learner.max_steps:
        return ()
    most = min(learner.max_steps, 2 * learner.default_steps)
    numbers = sorted({learner.default_steps, *(each for each in STEPS if each <= most)})
    return [_after(steps, subject, budget.episodes) for steps in numbers if steps <= 1 or not clock.over]


def _after(steps: int, subject: Subject, episodes: int) -> Step:
    learner, params, kind = subject.bundle.learner, subject.bundle.params, subject.bundle.learner.spec.task_kind
    scores, of_support, of_queries = [], [], []
    for tasks, generator in subject.batches(episodes):
        batch = subject.sampler.sample(subject.shape, tasks, generator)
        support = replace(batch.support, max_ways=learner.padded_ways(batch.support.max_ways))
        state = learner.adapt(params, support, steps).state
        answers = learner.predict(params, state, batch.query)
        own = learner.predict(params, state, Query(support.x, support.mask))
        scores.append(score(answers, batch))
        of_support.append(task_loss(kind, own, support.y, support.mask))
        of_queries.append(task_loss(kind, answers, batch.targets, batch.query.mask))
    values = torch.cat(scores).double().cpu()
    losses = [torch.cat(each).mean().item() for each in (of_support, of_queries)]
    return Step(steps, values.mean().item(), confidence_interval(values), *losses)

"""Gradients for teachers, through a pilot step of the student."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from innerloop_learner.objectives import Objective, Stage
from innerloop_learner.settings import setting
from innerloop_learner.tasks import Episodes, Params, Query
from innerloop_trainer.outer_loop.estimators.backpropagation import Backpropagation, backpropagate, look_ahead
from innerloop_trainer.outer_loop.estimators.estimator import Estimate, estimators
from innerloop_trainer.teaching import Distillation


@dataclass(frozen=True)
class PilotSettings:
    """How teachers are changed."""

    pilot_rate: float = setting(0.1, "learning rate of the pilot step, which is plain gradient descent", least=0.0)
    teacher_rate: float = setting(
        1.0, "learning rate of what is learned of the teachers, in parts of what is usual for the teaching", least=0.0
    )


@estimators.register("pilot")
class Pilot(Backpropagation):
    """MetaDistil: teachers learn to teach this student (Zhou, Xu and McAuley, ACL 2022, algorithm 1).

    The queries of every task are divided in two halves A and B. With the student's parameters w, what is learned of the
    teachers v, the distillation loss D (`Distillation`), the loss L of the student's own objective and a rate r:

        w' = w - r grad_w D(w, v; A)            the pilot step
        g  = grad_v L(w'; B)                    for the teachers, through the pilot step

    The teachers take their step along g first. Then the student, from w again, takes its own step along grad_w D with
    the changed teachers and all queries. So every example teaches as often as without a pilot step. B is held out from
    the pilot step alone, and tells what the student learned from the teachers in it.

    Raises:
        ValueError: there are no teachers of which something is learned, or the learner has discrete choices to learn.
    """

    settings_class = PilotSettings
    settings: PilotSettings
    objective: Distillation
    teachers = "learned"
    in_parts = False  # the pilot step follows the gradient of all tasks

    def __init__(self, objective: Objective, settings: Any) -> None:
        super().__init__(objective, settings)
        if not isinstance(objective, Distillation) or not objective.of_teachers():
            raise ValueError("it changes teachers; name one with --teacher, and what to learn of it with --teaching")
        self._of_teachers = objective.of_teachers().keys()

    def rates(self) -> Mapping[str, float]:
        """See Estimator.rates."""
        return dict.fromkeys(self._of_teachers, self.objective.teaching.rate * self.settings.teacher_rate)

    def estimate_ahead(self, params: Params, episodes: Episodes, stage: Stage) -> Params:
        """See Estimator.estimate_ahead: the gradient g of what is learned of the teachers."""
        own = self._of_teachers
        fixed = self.objective.learner.buffers() | own
        taught, held_out = halves(episodes)
        teaching = {name: params[name].detach().requires_grad_() for name in own}
        student = {name: value.detach().requires_grad_() for name, value in params.items() if name not in fixed}
        with torch.enable_grad():
            answers = self.objective.answers({**params, **teaching}, taught)
            loss = self.objective.taught({**params, **student}, taught, stage, answers).loss
            pilot, _ = look_ahead(loss, student, self.settings.pilot_rate)
            held_out_loss = self.objective.base({**params, **pilot}, held_out, stage).loss
            gradients = torch.autograd.grad(held_out_loss, list(teaching.values()), materialize_grads=True)
        return dict(zip(teaching, gradients, strict=True))

    def estimate(self, params: Params, carried: Params, episodes: Episodes, stage: Stage) -> Estimate:
        """See Estimator.estimate; the teachers have taken their step already."""
        del carried
        found = backpropagate(self.objective, params, episodes, stage)
        gradients = {name: value for name, value in found.gradients.items() if name not in self._of_teachers}
        return replace(found, gradients=gradients)


def halves(episodes: Episodes) -> tuple[Episodes, Episodes]:
    """The same tasks with every other query, and with the others.

    Queries are grouped by class, so each half has as many of a class as the other, or one more or less.
    """
    one, other = (
        replace(
            episodes,
            query=Query(episodes.query.x[:, start::2], episodes.query.mask[:, start::2]),
            targets=episodes.targets[:, start::2],
        )
        for start in (0, 1)
    )
    return one, other

"""The outer loss of a student: what labels say, and what teachers say."""

from typing import NamedTuple

import torch
from torch import Tensor

from innerloop_learner.losses import UNUSED_LOGIT, weighted_mean
from innerloop_learner.objectives import Objective, Outcome, Stage
from innerloop_learner.settings import SettingsError
from innerloop_learner.state import prefixed, section
from innerloop_learner.tasks import Episodes, Params
from innerloop_trainer.teaching.teachers import Teachers
from innerloop_trainer.teaching.teaching import DistillationSettings, Teaching

TEACHER = "teacher."
"""Prefix of the names of what is learned of teachers."""


class Answers(NamedTuple):
    """The answers of teachers to the queries of episodes.

    Attributes:
        log_probabilities: [T, Q, W].
        temperature: the temperature that they were given at, a scalar.
    """

    log_probabilities: Tensor
    temperature: Tensor


class Distillation(Objective):
    """Distillation of the answers to queries (Hinton, Vinyals and Dean 2015, section 2), across tasks.

    With the outer loss L of the student's own objective, its logits s for a query, the teachers' probabilities p at
    temperature t (`Teachers`), and their share a:

        (1 - a) L + a t^2 E_query KL(p || softmax(s / t))

    Student and teachers adapt to the same support set and answer the same queries. t^2 makes up for the size of
    gradients, which fall with 1 / t^2. The teachers' answers are constants here. What a `Teaching` learns of them are
    parameters of this objective, and the estimator `pilot` changes these.

    Args:
        base: the student's own objective.
        teachers: the teachers.
        teaching: what of the teachers is learned.
        settings: weight and temperature.

    Raises:
        SettingsError: the student does not classify, or its objective gives no answers to compare.
    """

    settings_class = DistillationSettings
    settings: DistillationSettings

    def __init__(self, base: Objective, teachers: Teachers, teaching: Teaching, settings: DistillationSettings) -> None:
        super().__init__(base.learner, settings)
        name = base.learner.info.name
        if base.learner.spec.task_kind != "classification":
            raise SettingsError(f"teachers answer with classes, and {name} is to solve regression; leave --teacher out")
        if not base.gives_answers:
            raise SettingsError(f"{name} is not trained by answers to queries; leave --teacher out")
        self.base, self.teachers, self.teaching = base, teachers, teaching

    def init(self, generator: torch.Generator) -> Params:
        """See Objective.init: those of the student's own objective, and what is learned of the teachers."""
        return {**self.base.init(generator), **self.of_teachers()}

    def of_teachers(self) -> Params:
        """What is learned of the teachers, as it is at first; empty if they stay as they are."""
        return prefixed(TEACHER, self.teaching.init(self.teachers, self.settings.temperature))

    def answers(self, params: Params, episodes: Episodes) -> Answers:
        """The teachers' answers, differentiable with respect to what is learned of them."""
        learned = section(params, TEACHER)
        temperature = self.teaching.temperature(learned, episodes.query.x.new_tensor(self.settings.temperature))
        heads = self.teaching.heads(learned)
        return Answers(self.teachers.log_probabilities(heads, episodes, temperature), temperature)

    def __call__(self, params: Params, episodes: Episodes, stage: Stage) -> Outcome:
        """See Objective.__call__; no gradient reaches the teachers."""
        with torch.no_grad():
            answers = self.answers(params, episodes)
        return self.taught(params, episodes, stage, answers)

    def taught(self, params: Params, episodes: Episodes, stage: Stage, answers: Answers) -> Outcome:
        """The loss given the teachers' answers, differentiable with respect to these, too."""
        outcome, share = self.base(params, episodes, stage), self.settings.teacher_share
        apart = divergence(answers, outcome.outputs, episodes.query.mask).mean()
        return outcome._replace(loss=(1 - share) * outcome.loss + share * apart)


def divergence(answers: Answers, logits: Tensor, mask: Tensor) -> Tensor:
    """t^2 KL(p || softmax(s / t)) of each task [T], averaged over its queries.

    Args:
        answers: the teachers' answers.
        logits: s, the student's logits [T, Q, W], or fewer columns if the last ones stand for no class of any task.
        mask: which queries count, [T, Q].

    Example:
        >>> sure = torch.tensor([[[0.9, 0.1]]]).log()
        >>> answers, mask = Answers(sure, torch.tensor(1.0)), torch.ones(1, 1, dtype=torch.bool)
        >>> divergence(answers, sure, mask) < 1e-6, divergence(answers, torch.zeros(1, 1, 2), mask)
        (tensor([True]), tensor([0.3681]))
    """
    log_p, temperature = answers.log_probabilities[..., : logits.shape[-1]], answers.temperature
    log_q = (logits.clamp(min=UNUSED_LOGIT) / temperature).log_softmax(-1)
    return temperature**2 * weighted_mean((log_p.exp() * (log_p - log_q)).sum(-1), mask)

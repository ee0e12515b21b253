"""Score-function gradients for discrete meta-parameters."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.losses import task_loss
from innerloop_learner.objectives import Objective, Stage
from innerloop_learner.parts import current_part
from innerloop_learner.settings import setting
from innerloop_learner.tasks import Episodes, Params
from innerloop_trainer.outer_loop.estimators.backpropagation import backpropagate
from innerloop_trainer.outer_loop.estimators.estimator import Estimate, Estimator, estimators

BASELINE = "baseline"
"""Name of the moving baseline, which is NaN before the first call."""


@dataclass(frozen=True)
class ReinforceSettings:
    """How choices are learned."""

    entropy_bonus: float = setting(0.01, "what a nat of the choices' entropy is worth, in units of the loss", least=0.0)
    baseline_share: float = setting(
        0.95, "share of the baseline, a moving mean of losses, that an outer step keeps", least=0.0, most=1.0
    )
    choice_rate: float = setting(
        30.0, "learning rate of choices, in learning rates of the other meta-parameters", least=0.0
    )


@estimators.register("reinforce")
class Reinforce(Estimator):
    """REINFORCE for choices, backpropagation for all else (Williams 1992, section 4).

    A learner's choices c (`Learner.choices`) have logits a_c. For each of T tasks an option of every choice is drawn,
    z_{t,c} ~ p_c = softmax(a_c), and the task is learned with it, which leaves it with the query loss L_t. With the
    baseline b, a moving mean of the losses of earlier outer steps, the entropy H of a distribution and its weight h:

        g_c = 1/T sum_t (L_t - b) (onehot(z_{t,c}) - p_c) - h grad H(p_c)

    On average over draws g_c is the gradient of the expected loss less h H(p_c), whatever b is, and what is
    differentiated through the drawn choices is that of the expected loss in the other meta-parameters. The bonus keeps
    a choice from being made before its losses tell options apart (Williams and Peng 1991). In the first call, the mean
    loss of its own tasks stands in for b, by which g_c is shorter by 1/T.

    Raises:
        ValueError: the learner has no choices to learn.
    """

    settings_class = ReinforceSettings
    settings: ReinforceSettings
    teachers = "fixed"
    through_steps = True
    in_parts = True

    def __init__(self, objective: Objective, settings: Any) -> None:
        super().__init__(objective, settings)
        learner = objective.learner
        if not learner.choices():
            raise ValueError(f"this {learner.info.name} has no choices to learn; take --estimator backpropagation")

    def start(self, params: Params) -> Params:
        """See Estimator.start: there is no baseline yet."""
        return {BASELINE: next(iter(params.values())).new_tensor(torch.nan)}

    def rates(self) -> Mapping[str, float]:
        """See Estimator.rates."""
        return dict.fromkeys(self.objective.learner.choices(), self.settings.choice_rate)

    def estimate(self, params: Params, carried: Params, episodes: Episodes, stage: Stage) -> Estimate:
        """See Estimator.estimate; loss and outputs are those with the choices that were drawn."""
        learner = self.objective.learner
        logits = {name: params[name] for name in sorted(learner.choices())}
        drawn = draw(logits, episodes.support.tasks, stage)
        found = backpropagate(self.objective, {**params, **drawn}, episodes, stage)
        losses = task_loss(learner.spec.task_kind, found.outputs, episodes.targets, episodes.query.mask)
        before, mean = carried[BASELINE], current_part().mean(losses.mean())
        baseline = torch.where(before.isnan(), mean, before)
        gradients = {
            name: policy_gradient(value, drawn[name], losses - baseline, self.settings.entropy_bonus)
            for name, value in logits.items()
        }
        after = baseline.lerp(mean, 1 - self.settings.baseline_share)
        return replace(found, gradients={**found.gradients, **gradients}, carried={BASELINE: after})


def draw(logits: Params, tasks: int, stage: Stage) -> Params:
    """An option of every choice for each task, one-hot [T, C], the same ones on every device."""
    generator, part = stage.generator(), current_part()
    drawn = {}
    for name, value in logits.items():
        probabilities = value.softmax(0).double().cpu()
        options = probabilities.multinomial(part.total(tasks), replacement=True, generator=generator)
        drawn[name] = F.one_hot(part.own(options), len(value)).to(value)
    return drawn


def policy_gradient(logits: Tensor, drawn: Tensor, advantages: Tensor, entropy_bonus: float) -> Tensor:
    """The gradient g_c [C] of `Reinforce` for one choice.

    Args:
        logits: a_c, [C].
        drawn: options that were drawn, one-hot [T, C].
        advantages: how much larger each task's loss is than the baseline, [T].
        entropy_bonus: weight h of the entropy.

    Example:
        The first option did worse than the baseline and the second one better, so the step against this gradient goes
        from the one to the other:

        >>> policy_gradient(torch.zeros(2), torch.eye(2), torch.tensor([1.0, -1.0]), entropy_bonus=0.0)
        tensor([ 0.5000, -0.5000])
    """
    log_probabilities = logits.log_softmax(0)
    probabilities = log_probabilities.exp()
    entropy = -(probabilities * log_probabilities).sum()
    of_losses = (advantages.unsqueeze(1) * (drawn - probabilities)).mean(0)
    return of_losses + entropy_bonus * probabilities * (log_probabilities + entropy)

"""The loss after every inner step, for learned optimizers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from innerloop_learner.gradient_learner import GradientLearner
from innerloop_learner.inner_loop import unroll
from innerloop_learner.learner import Learner
from innerloop_learner.losses import task_loss
from innerloop_learner.objectives.objective import Objective, Outcome, Stage, averaged, objectives, refitted
from innerloop_learner.recomputation import recomputed
from innerloop_learner.settings import setting
from innerloop_learner.tasks import Episodes, Params, Support, TaskState


@dataclass(frozen=True)
class EveryStepSettings:
    """Settings of `EveryStep`."""

    step_weights: Sequence[float] = setting(
        (), "weight of the loss after each inner step, one number for each; equal ones, as in the paper, if left out"
    )
    truncate: int = setting(0, "inner steps that gradients go back through time at most; zero for all", least=0)
    initialisation: Literal["learned", "random"] = setting(
        "learned",
        "learned together with the optimizer; or random as in the paper, where the optimizer is trained on its own, "
        "from fresh weights in every outer step, and the bundle serves from one such draw",
    )


@objectives.register("every_step")
class EveryStep(Objective):
    """Weighted mean of the query losses after every inner step (Andrychowicz et al. 2016, equation 3).

    sum_{t=1..K} v_t L_Q(w_t) / sum_t v_t
    """

    settings_class = EveryStepSettings
    settings: EveryStepSettings
    trains = GradientLearner
    learner: GradientLearner

    def __init__(self, learner: Learner, settings: Any) -> None:
        super().__init__(learner, settings)
        steps, weights = learner.default_steps, self.settings.step_weights
        if weights and (len(weights) != steps or min(weights) < 0 or not sum(weights)):
            raise ValueError(f"step_weights must be {steps} numbers, one for each step, none negative and not all zero")
        self._weights = [weight / sum(weights) for weight in weights] or [1 / steps] * steps

    def __call__(self, params: Params, episodes: Episodes, stage: Stage) -> Outcome:
        """See Objective.__call__; the outputs are those after the last step."""
        support, query, learner = episodes.support, episodes.query, self.learner
        fresh = refitted(learner, params, support)
        in_use = {**params, **fresh, **self.drawn(params, stage)}
        asked, losses = self.asking(in_use, stage), []

        def ask(state: TaskState) -> tuple[Tensor, Tensor]:
            outputs = learner.predict(asked, state, query)
            return task_loss(learner.spec.task_kind, outputs, episodes.targets, query.mask).mean(), outputs

        states = task_states(learner, in_use, support, learner.order, self.settings.truncate)
        for weight, state in zip(self._weights, states, strict=True):
            loss, outputs = recomputed(ask, wanted=learner.recompute)(state)
            losses.append(weight * loss)
        return Outcome(torch.stack(losses).sum(), outputs, averaged(params, fresh))

    def drawn(self, params: Params, stage: Stage) -> Params:
        """Fresh initial weights for this outer step; empty if they are learned."""
        if self.settings.initialisation == "learned":
            return {}
        learner, like = self.learner, next(iter(params.values()))

        def make(stage: Stage) -> Params:
            generator = stage.generator()
            drawn = {**learner.backbone.init(generator), **learner.head.init(generator)}
            return {name: value.to(like.dtype) for name, value in drawn.items() if name not in learner.buffers()}

        return stage.made(make, like.device)


def task_states(
    learner: GradientLearner, params: Params, support: Support, order: Literal[1, 2], truncate: int = 0
) -> Iterator[TaskState]:
    """The task state after each of a learner's inner steps; see `inner_loop.unroll` for `order` and `truncate`."""
    frozen = learner.frozen_features(params, support)
    loss = learner.support_loss(params, support, frozen)
    initial, steps, again = learner.adapted(params), learner.default_steps, learner.recompute
    state_after = recomputed(learner.state_after, wanted=again)
    taken = unroll(loss, initial, learner.rule, params, steps, support.tasks, order, truncate, again)
    for index, (weights, _) in enumerate(taken):
        yield state_after(params, weights, support, frozen, index + 1)

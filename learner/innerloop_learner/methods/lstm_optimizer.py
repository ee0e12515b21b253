"""A learned optimizer."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch

from innerloop_learner.gradient_learner import GradientLearner
from innerloop_learner.learner import Objective, Stage, TrainingDefaults, methods
from innerloop_learner.methods.maml import MAML
from innerloop_learner.norms import running_average
from innerloop_learner.tasks import Episodes, Params
from innerloop_learner.update_rules import update_rules


@methods.register("lstm-optimizer")
class LSTMOptimizer(GradientLearner):
    """Learning to learn by gradient descent by gradient descent (Andrychowicz et al. 2016, equations 2 and 3).

    With the update rule m of `update_rules.lstm`, its parameters p and state h:

        w_{t+1} = w_t + g_t,   [g_t, h_{t+1}] = m(grad L_S(w_t), h_t, p),
        outer loss  sum_{t=1..K} v_t L_Q(w_t) / sum_t v_t

    Gradients of the learned-from loss are constants (figure 2).

    Settings (`spec.settings`):
        steps, max_steps: as MAML's.
        rate: scale of m's output.
        hidden: units of each of m's layers.
        step_weights: v, one for each step; equal ones, as in the paper, if left out.
        truncate: steps that gradients go back through time at most; zero for all.
        adapts: "all" weights, or the "head" only.
        initialisation: "learned" together with the optimizer, or "random" as in the paper: the optimizer is trained on
            its own, from fresh weights in every outer step, and the bundle serves from one such draw.
    """

    info = replace(
        MAML.info,
        name="lstm-optimizer",
        family="optimizer",
        paper="Andrychowicz et al.: Learning to learn by gradient descent by gradient descent. NIPS 2016",
        training=TrainingDefaults(meta_batch=4, queries=3),
    )
    order = 1

    def _configure(
        self,
        steps: int = 5,
        max_steps: int = 20,
        rate: float = 0.1,
        hidden: int = 20,
        step_weights: Sequence[float] = (),
        truncate: int = 0,
        adapts: Literal["all", "head"] = "all",
        initialisation: Literal["learned", "random"] = "learned",
    ) -> None:
        self._take_steps(steps, max_steps)
        if truncate < 0:
            raise ValueError(f"truncate must be at least 0, not {truncate}")
        if step_weights and (len(step_weights) != steps or min(step_weights) < 0 or not sum(step_weights)):
            raise ValueError(f"step_weights must be {steps} numbers, one for each step, none negative and not all zero")
        self._step_weights = [weight / sum(step_weights) for weight in step_weights] or [1 / steps] * steps
        self.rule = update_rules["lstm"](rate=rate, hidden=hidden)
        self.adapts_body = adapts == "all"
        self._truncate, self._random = truncate, initialisation == "random"

    def objective(self, params: Params, episodes: Episodes, stage: Stage) -> Objective:
        """See Learner.objective; the weighted mean over the steps of the query loss after each."""
        support, query = episodes.support, episodes.query
        fresh = self.refit_buffers(params, support)
        in_use = {**params, **fresh, **(self._drawn(params, stage) if self._random else {})}
        losses = []
        trajectory = self.trajectory(in_use, support, self._steps, self.order, self._truncate)
        for weight, state in zip(self._step_weights, trajectory, strict=True):
            outputs = self.predict(in_use, state, query)
            losses.append(weight * self.loss(outputs, episodes.targets, query.mask).mean())
        return Objective(torch.stack(losses).sum(), outputs, running_average(params, fresh))

    def _drawn(self, params: Params, stage: Stage) -> Params:
        """Fresh initial weights."""
        generator = stage.generator()
        drawn = {**self.backbone.init(generator), **self.head.init(generator)}
        return {name: value.to(params[name]) for name, value in drawn.items() if name not in self.buffers()}

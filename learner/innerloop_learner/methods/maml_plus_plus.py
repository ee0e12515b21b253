"""MAML++."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from innerloop_learner.backbones.backbone import Features
from innerloop_learner.inner_loop import spread, unroll
from innerloop_learner.learner import Objective, Stage, TrainingDefaults, methods
from innerloop_learner.loops import Index, row
from innerloop_learner.losses import UNUSED_LOGIT
from innerloop_learner.methods.maml import MAML
from innerloop_learner.norms import running_average
from innerloop_learner.state import section
from innerloop_learner.tasks import Episodes, Params, Support, TaskState
from innerloop_learner.update_rules import update_rules

NORM = "norm."
"""Prefix of a task state's norm parameters: those of the step it stopped at."""

MULTI_STEP_SHARE = 0.1
"""Share of meta-training during which the losses after all steps count."""

FIRST_ORDER_SHARE = 1 / 3
"""Share of meta-training with first-order gradients, where they are annealed."""

LEAST_STEP_WEIGHT = 0.03
"""What remains of an early step's weight, relative to its first weight, before it stops counting at all."""


@methods.register("maml++")
class MAMLPlusPlus(MAML):
    """MAML made stable (Antoniou, Edwards and Storkey 2019, section 4); every part can be switched off.

    With weights w_k after k of K steps, rates a_{l,k} of layer l and norm parameters n_k, all meta-learned:

        w_{l,k+1} = w_{l,k} - a_{l,k} * grad_l L_S(w_k; n_k),
        outer loss  sum_k v_k L_Q(w_k; n_k)

    v_k starts at 1/K for every step and moves to the last one; then only L_Q(w_K) counts. The first third of training
    takes inner gradients as constants. n_k are the scales and shifts of the norms and, for norm "batch", their running
    statistics; the inner loop leaves them alone. The cosine schedule of the outer rate is the trainer's
    (--schedule) and ends at zero.

    Settings are those of MAML, and:
        update_rule: "layer_rates" learns a rate for every layer and step (LSLR), "sgd" keeps one fixed rate.
        multi_step_loss: weigh the losses after all steps at first (MSL).
        per_step_norm: norm parameters and statistics of their own for every step (BNRS and BNWB).
        anneal_order: first-order gradients at first (DA).
    """

    info = replace(
        MAML.info,
        name="maml++",
        paper="Antoniou, Edwards, Storkey: How to Train Your MAML. ICLR 2019",
        training=TrainingDefaults(meta_batch=8),
    )

    def _configure(
        self,
        steps: int = 5,
        max_steps: int = 20,
        update_rule: str = "layer_rates",
        rate: float = 0.1,
        multi_step_loss: bool = True,
        per_step_norm: bool = True,
        anneal_order: bool = True,
    ) -> None:
        super()._configure(steps, max_steps, update_rule, rate)
        if update_rule == "layer_rates":
            self.rule = update_rules[update_rule](rate=rate, steps=steps)
        self._multi_step_loss, self._per_step_norm, self._anneal_order = multi_step_loss, per_step_norm, anneal_order

    def init(self, generator: torch.Generator) -> Params:
        """See Learner.init; per-step norm parameters are [K + 1, C], row k for weights after k steps."""
        params = super().init(generator)
        rows = {name: params[name].expand(self._steps + 1, -1).clone() for name in self._norm_names()}
        return {**params, **rows}

    def objective(self, params: Params, episodes: Episodes, stage: Stage) -> Objective:
        """See Learner.objective; the norms are refitted to the batch for the weights after every step."""
        support, query = episodes.support, episodes.query
        shares = self._step_shares(stage.progress)
        initial = self._adapted(params)
        rows = [self._refitted(params, spread(initial, support.tasks), support, 0)]

        def support_loss(step: Index, weights: Params) -> Tensor:
            merged = {**self._at_step(params, step), **rows[-1], **weights}
            features = self.backbone.apply(merged, support.x, support.mask)
            logits = self._outputs(merged, features.values, support.ways, UNUSED_LOGIT)
            return self.loss(logits, support.y, support.mask)

        order: Literal[1, 2] = 1 if self._anneal_order and stage.progress < FIRST_ORDER_SHARE else 2
        losses = []
        steps = unroll(support_loss, initial, self.rule, params, self._steps, support.tasks, order)
        for step, (weights, _) in enumerate(steps, start=1):
            if self._per_step_norm:
                rows.append(self._refitted(params, weights, support, step))
            if shares[step - 1]:
                merged = {**self._at_step(params, step), **rows[-1], **weights}
                statistics = self._statistics(merged, support)
                features = self.backbone.apply(merged, query.x, query.mask, statistics)
                outputs = self._outputs(merged, features.values, support.ways, -torch.inf)
                losses.append(shares[step - 1] * self.loss(outputs, episodes.targets, query.mask).mean())
        fresh = {name: torch.stack([row[name] for row in rows]) for name in rows[0]} if self._per_step_norm else rows[0]
        return Objective(torch.stack(losses).sum(), outputs, running_average(params, fresh))

    def _refitted(self, params: Params, weights: Params, support: Support, step: int) -> Params:
        """The norms' buffers that fit the batch with weights after so many steps.

        Taken of the weights that the step began with, they are constants to its gradient, as they are in serving.
        """
        merged = {**self._at_step(params, step), **weights}
        return self.backbone.refit(merged, support.x, support.mask) if self.buffers() else {}

    def _statistics(self, merged: Params, support: Support) -> Params:
        """The statistics of the support set that normalise queries; empty for norms that need none."""
        if not self.backbone.support_statistics:
            return {}
        return self.backbone.apply(merged, support.x, support.mask).statistics

    def _step_shares(self, progress: float) -> list[float]:
        """Weight v of the query loss after each step, sum one."""
        if not self._multi_step_loss or progress >= MULTI_STEP_SHARE:
            return [0.0] * (self._steps - 1) + [1.0]
        early = max(1 - progress / MULTI_STEP_SHARE, LEAST_STEP_WEIGHT) / self._steps
        return [early] * (self._steps - 1) + [1 - early * (self._steps - 1)]

    def _norm_names(self) -> set[str]:
        """Names of norm parameters and buffers that every step has its own of."""
        names = {name for norm in self.backbone.norms for name in norm.init()}
        return names if self._per_step_norm else set()

    def _at_step(self, params: Params, steps: Index) -> Params:
        """See GradientLearner._at_step."""
        return {**params, **{name: row(params[name], steps) for name in self._norm_names()}}

    def _of_state(self, params: Params, state: TaskState) -> Params:
        """See GradientLearner._of_state."""
        return {**super()._of_state(params, state), **section(state, NORM)}

    def _state(
        self, params: Params, weights: Params, support: Support, frozen: Features | None, steps: Index
    ) -> TaskState:
        """See GradientLearner._state."""
        at_step = self._at_step(params, steps)
        norm = spread({name: at_step[name] for name in self._norm_names()}, support.tasks)
        state = super()._state(params, weights, support, frozen, steps)
        return {**state, **{NORM + name: value for name, value in norm.items()}}

    def _adapted(self, params: Params) -> Params:
        """See GradientLearner._adapted."""
        own = self._norm_names()
        return {name: value for name, value in super()._adapted(params).items() if name not in own}

"""The outer loss of MAML++."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from innerloop_learner.inner_loop import spread, unroll
from innerloop_learner.loops import Index
from innerloop_learner.losses import UNUSED_LOGIT, task_loss
from innerloop_learner.methods.maml_plus_plus import MAMLPlusPlus
from innerloop_learner.objectives.objective import Objective, Outcome, Stage, averaged, objectives, refitted
from innerloop_learner.recomputation import recomputed
from innerloop_learner.settings import setting
from innerloop_learner.tasks import Episodes, Params, Support

MULTI_STEP_SHARE = 0.1
"""Share of meta-training during which the losses after all steps count."""

FIRST_ORDER_SHARE = 1 / 3
"""Share of meta-training with first-order gradients, where they are annealed."""

LEAST_STEP_WEIGHT = 0.03
"""Share of its initial weight that an early step's loss keeps until the losses of early steps stop counting."""


@dataclass(frozen=True)
class AnnealedStepsSettings:
    """Switches of MAML++'s improvements of training."""

    multi_step_loss: bool = setting(True, "weigh the losses after all steps at first (MSL)")
    anneal_order: bool = setting(True, "first-order gradients at first (DA)")


@objectives.register("annealed_steps")
class AnnealedSteps(Objective):
    """Query losses of all steps at first, the last one later (Antoniou et al. 2019, section 4).

        sum_k v_k L_Q(w_k; n_k)

    with weights w_k and norm parameters n_k after k of K steps. v_k starts at 1/K for every step and moves to the last
    one; then only L_Q(w_K) counts. The first third of training takes inner gradients as constants.
    """

    settings_class = AnnealedStepsSettings
    settings: AnnealedStepsSettings
    trains = MAMLPlusPlus
    learner: MAMLPlusPlus

    def __call__(self, params: Params, episodes: Episodes, stage: Stage) -> Outcome:
        """See Objective.__call__; the norms are refitted to the batch for the weights after every step."""
        learner, support, recompute = self.learner, episodes.support, self.learner.recompute
        own_norms, steps = learner.settings.per_step_norm, learner.default_steps
        examples = learner.example_weights(support)
        order, every = stage.chosen(self._order), stage.chosen(self._every_step_counts)
        shares = stage.made(self._step_shares, support.x.device)["shares"]
        initial = learner.adapted(params)
        refit, ask = recomputed(self._refitted, wanted=recompute), recomputed(self._asked, wanted=recompute)
        rows = [refit(params, spread(initial, support.tasks), support, 0)]

        def support_loss(step: Index, weights: Params, twice: bool) -> Tensor:
            own = rows[int(step)] if own_norms else rows[0]
            merged = {**learner.at_step(params, step), **own, **weights}
            backbone = learner.backbone if twice else learner.backbone.once
            features = backbone.apply(merged, support.x, examples)
            outputs = learner.outputs(merged, features.values, support.ways, UNUSED_LOGIT)
            return task_loss(learner.spec.task_kind, outputs, support.y, examples)

        losses = []
        rule, tasks = learner.rule, support.tasks
        taken = unroll(support_loss, initial, rule, params, steps, tasks, order, recompute=recompute)
        for step, (weights, _) in enumerate(taken, start=1):
            if own_norms:
                rows.append(refit(params, weights, support, step))
            if every or step == steps:
                loss, outputs = ask({**learner.at_step(params, step), **rows[-1], **weights}, episodes, stage)
                losses.append(shares[step - 1].to(loss.dtype) * loss)
        fresh = {name: torch.stack([row[name] for row in rows]) for name in rows[0]} if own_norms else rows[0]
        return Outcome(torch.stack(losses).sum(), outputs, averaged(params, fresh))

    def _refitted(self, params: Params, weights: Params, support: Support, step: int) -> Params:
        """The buffers of the norms that fit the batch, for weights that have taken `step` steps.

        They are computed before the step, so its gradient takes them as constants, as it does in serving.
        """
        return refitted(self.learner, {**self.learner.at_step(params, step), **weights}, support)

    def _asked(self, merged: Params, episodes: Episodes, stage: Stage) -> tuple[Tensor, Tensor]:
        """The mean loss of the queries and their outputs, for the weights and norms of a step."""
        learner, support, query = self.learner, episodes.support, episodes.query
        statistics = self._statistics(merged, support)
        features = learner.backbone.apply(self.asking(merged, stage), query.x, query.mask, statistics)
        outputs = learner.outputs(merged, features.values, support.ways, -torch.inf)
        return task_loss(learner.spec.task_kind, outputs, episodes.targets, query.mask).mean(), outputs

    def _statistics(self, merged: Params, support: Support) -> Params:
        """The statistics of the support set that normalise queries; empty for norms that need none."""
        backbone = self.learner.backbone
        if not backbone.support_statistics:
            return {}
        return backbone.apply(merged, support.x, self.learner.example_weights(support)).statistics

    def _order(self, stage: Stage) -> Literal[1, 2]:
        """Order of derivatives through inner steps."""
        return 1 if self.settings.anneal_order and stage.progress < FIRST_ORDER_SHARE else 2

    def _every_step_counts(self, stage: Stage) -> bool:
        """Whether the query losses after all steps count, and not that after the last alone."""
        return self.settings.multi_step_loss and stage.progress < MULTI_STEP_SHARE

    def _step_shares(self, stage: Stage) -> Params:
        """Weight v of the query loss after each step, [K] float64; they sum to one."""
        steps, early = self.learner.default_steps, 0.0
        if self._every_step_counts(stage):
            early = max(1 - stage.progress / MULTI_STEP_SHARE, LEAST_STEP_WEIGHT) / steps
        return {"shares": torch.tensor([early] * (steps - 1) + [1 - early * (steps - 1)], dtype=torch.float64)}

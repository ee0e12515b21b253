"""MAML++."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from innerloop_learner.backbones.backbone import Features
from innerloop_learner.inner_loop import spread
from innerloop_learner.learner import methods
from innerloop_learner.loops import Index, row
from innerloop_learner.methods.maml import MAML, MAMLSettings
from innerloop_learner.settings import setting
from innerloop_learner.state import section
from innerloop_learner.tasks import Params, Support, TaskState
from innerloop_learner.update_rules import update_rules

NORM = "norm."
"""Prefix in task states of the norm parameters that belong to the last step taken."""


@dataclass(frozen=True)
class MAMLPlusPlusSettings(MAMLSettings):
    """Settings of MAML, and which improvements of the inner loop are on."""

    update_rule: str = setting(
        "layer_rates", "layer_rates learns a rate for every layer and step (LSLR), sgd keeps one fixed rate"
    )
    per_step_norm: bool = setting(True, "norm parameters and statistics of their own for every step (BNRS and BNWB)")


@methods.register("maml++")
class MAMLPlusPlus(MAML):
    """MAML made stable, with rates for each layer and step (Antoniou, Edwards and Storkey 2019, section 4).

    Every part can be switched off.

    With weights w_k after k of K steps, rates a_{l,k} of layer l and norm parameters n_k, all meta-learned:

        w_{l,k+1} = w_{l,k} - a_{l,k} * grad_l L_S(w_k; n_k)

    n_k are the scales and shifts of the norms and, for norm "batch", their running statistics; the inner loop leaves
    them alone. The outer loss is `objectives.annealed_steps`. The cosine schedule of the outer rate is the trainer's
    (--schedule) and ends at zero.
    """

    info = replace(
        MAML.info,
        name="maml++",
        family="optimizer",
        paper="Antoniou, Edwards, Storkey: How to Train Your MAML. ICLR 2019",
        objective="annealed_steps",
    )
    settings_class = MAMLPlusPlusSettings
    settings: MAMLPlusPlusSettings
    weighs_examples = False  # its objective has a support loss of its own
    takes_noise = False
    augments_support = False
    retired_settings = frozenset({"multi_step_loss", "anneal_order"})

    def _configure(self) -> None:
        super()._configure()
        if self.settings.update_rule == "layer_rates":
            self.rule = update_rules["layer_rates"](rate=self.settings.rate, steps=self.settings.steps)

    def init(self, generator: torch.Generator) -> Params:
        """See Learner.init; per-step norm parameters are [K + 1, C], row k for weights after k steps."""
        params = super().init(generator)
        rows = {name: params[name].expand(self.settings.steps + 1, -1).clone() for name in self._norm_names()}
        return {**params, **rows}

    def _norm_names(self) -> set[str]:
        """Names of norm parameters and buffers that every step has its own of."""
        names = {name for norm in self.backbone.norms for name in norm.init()}
        return names if self.settings.per_step_norm else set()

    def at_step(self, params: Params, steps: Index) -> Params:
        """See GradientLearner.at_step."""
        return {**params, **{name: row(params[name], steps) for name in self._norm_names()}}

    def _of_state(self, params: Params, state: TaskState) -> Params:
        """See GradientLearner._of_state."""
        return {**super()._of_state(params, state), **section(state, NORM)}

    def state_after(
        self,
        params: Params,
        weights: Params,
        support: Support,
        frozen: Features | None,
        steps: Index,
        learned: Tensor | None = None,
    ) -> TaskState:
        """See GradientLearner.state_after."""
        at_step = self.at_step(params, steps)
        norm = spread({name: at_step[name] for name in self._norm_names()}, support.tasks)
        state = super().state_after(params, weights, support, frozen, steps, learned)
        return {**state, **{NORM + name: value for name, value in norm.items()}}

    def adapted(self, params: Params) -> Params:
        """See GradientLearner.adapted."""
        own = self._norm_names()
        return {name: value for name, value in super().adapted(params).items() if name not in own}

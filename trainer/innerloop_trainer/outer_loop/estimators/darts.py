"""Gradients of what a network is, from other tasks than those of its weights."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from innerloop_learner.objectives import Objective, Stage
from innerloop_learner.settings import setting
from innerloop_learner.tasks import Episodes, Params
from innerloop_trainer.outer_loop.estimators.backpropagation import backpropagate
from innerloop_trainer.outer_loop.estimators.estimator import Estimate, Estimator, estimators

AUXILIARY_SKIP = "mixture.auxiliary_skip"
"""Name of the buffer that is the weight of the auxiliary skip connection beside each mixture of operations."""


@dataclass(frozen=True)
class DartsSettings:
    """How mixtures of operations are learned."""

    mixture_rate: float = setting(
        10.0, "learning rate of the logits of operations, in learning rates of the weights", least=0.0
    )
    auxiliary_skip: float = setting(
        1.0, "weight of the auxiliary skip connection at first, from where it goes down to 0; 0 for none", least=0.0
    )


@estimators.register("darts")
class Darts(Estimator):
    """Weighs operations by tasks of held-out classes (Liu, Simonyan and Yang 2019).

    This is differentiable architecture search of first order (xi = 0 in the paper), and only `innerloop search darts`
    uses it. The first half of a batch of tasks is of the classes that weights w are trained on, the second half of
    held-out classes. One step goes, with the logits a of a backbone that mixes operations (`Backbone.architecture`),

        along grad_w L_train(w, a) in w,   and along grad_a L_held-out(w, a) in a

    Skip connections help all that stands before them to train, which gradients mistake for being good themselves, so
    that plain DARTS collapses onto them. Each mixture therefore has a skip connection beside it, that is not among what
    is chosen, and whose weight falls from `auxiliary_skip` to 0 in the course of training (Chu et al., DARTS-, ICLR
    2021): it gives that help to all operations alike. Unlike early stopping this needs no sign of a collapse to watch.

    Raises:
        ValueError: the learner's backbone mixes no operations, its objective asks about training classes alone, or it
            has discrete choices to learn.
    """

    settings_class = DartsSettings
    settings: DartsSettings
    in_parts = False  # one half of the tasks is told from the other by their places
    learns_architecture = True
    through_steps = True

    def __init__(self, objective: Objective, settings: Any) -> None:
        super().__init__(objective, settings)
        self._names = sorted(objective.learner.backbone.architecture())
        if not self._names:
            raise ValueError("this backbone mixes no operations; `innerloop search darts` makes one that does")
        others, name = "search with evolution, reinforce or random", objective.learner.info.name
        if objective.needs_classes:
            raise ValueError(
                f"{name} learns to tell all training classes apart, and has nothing to say of held-out ones; {others}"
            )
        if objective.learner.choices():
            raise ValueError(f"no gradient reaches the choices of {name}; {others}")

    def rates(self) -> Mapping[str, float]:
        """See Estimator.rates."""
        return dict.fromkeys(self._names, self.settings.mixture_rate)

    def estimate(self, params: Params, carried: Params, episodes: Episodes, stage: Stage) -> Estimate:
        """See Estimator.estimate; loss and outputs are those of the first half of the tasks."""
        del carried
        if episodes.support.tasks % 2:
            raise ValueError("darts takes two halves of a batch of tasks: an even --meta-batch")
        skip = torch.full_like(params[AUXILIARY_SKIP], self.settings.auxiliary_skip * (1 - stage.progress))
        params = {**params, AUXILIARY_SKIP: skip}
        half = episodes.support.tasks // 2
        training, held_out = episodes.of_tasks(slice(half)), episodes.of_tasks(slice(half, None))
        found = backpropagate(self.objective, params, training, stage)
        logits = {name: params[name].detach().requires_grad_() for name in self._names}
        with torch.enable_grad():
            loss = self.objective({**params, **logits}, held_out, stage).loss
            gradients = torch.autograd.grad(loss, list(logits.values()))
        return replace(
            found,
            gradients={**found.gradients, **dict(zip(logits, gradients, strict=True))},
            buffers={**found.buffers, AUXILIARY_SKIP: skip},
            answered=training,
        )

"""No meta-learning at all."""

from dataclasses import replace

import torch

from innerloop_learner.learner import Objective, Stage, TrainingDefaults, methods
from innerloop_learner.methods.maml import MAML
from innerloop_learner.tasks import Episodes, Params


@methods.register("scratch")
class Scratch(MAML):
    """Random weights, fine-tuned on the support set: what every other method must beat.

        w_{k+1} = w_k - a * grad L_S(w_k),   w_0 drawn once and never learned

    Settings are those of MAML.
    """

    info = replace(
        MAML.info,
        name="scratch",
        family="baseline",
        paper="Chen, Liu, Kira, Wang, Huang: A Closer Look at Few-shot Classification. ICLR 2019",
        training=TrainingDefaults(iterations=1, meta_batch=1),
    )

    def _configure(self, steps: int = 50, max_steps: int = 200, update_rule: str = "sgd", rate: float = 0.1) -> None:
        super()._configure(steps, max_steps, update_rule, rate)

    def objective(self, params: Params, episodes: Episodes, stage: Stage) -> Objective:
        """See Learner.objective; nothing is learned, so that every gradient is zero."""
        del stage
        with torch.no_grad():
            state = self.adapt(params, episodes.support).state
            outputs = self.predict(params, state, episodes.query)
            loss = self.loss(outputs, episodes.targets, episodes.query.mask).mean()
        nothing = torch.stack([value.sum() * 0 for value in params.values()]).sum()
        return Objective(loss + nothing, outputs, {})

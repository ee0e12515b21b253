"""The estimator of methods without meta-learning."""

import torch

from innerloop_learner.objectives import Stage
from innerloop_learner.tasks import Episodes, Params
from innerloop_trainer.outer_loop.estimators.estimator import Estimate, Estimator, estimators


@estimators.register("nothing")
class Nothing(Estimator):
    """Gives no gradients; parameters stay as they are.

    Only the loss is computed.
    """

    in_parts = True

    @torch.no_grad()
    def estimate(self, params: Params, carried: Params, episodes: Episodes, stage: Stage) -> Estimate:
        """See Estimator.estimate."""
        del carried
        outcome = self.objective(params, episodes, stage)
        return Estimate({}, {}, outcome.loss, outcome.outputs)

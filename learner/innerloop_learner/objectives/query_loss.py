"""The loss of the answers to queries."""

from torch import Tensor

from innerloop_learner.losses import task_loss
from innerloop_learner.objectives.objective import Objective, Outcome, Stage, averaged, objectives, refitted
from innerloop_learner.tasks import Episodes, Params


@objectives.register("query_loss")
class QueryLoss(Objective):
    """The mean loss of a task's queries after adapting.

    In symbols, it is E_task L_Q(predict(adapt(S), Q)).
    """

    def __call__(self, params: Params, episodes: Episodes, stage: Stage) -> Outcome:
        """See Objective.__call__."""
        fresh = refitted(self.learner, params, episodes.support)
        in_use = {**params, **fresh}
        state = self.learner.adapt(in_use, episodes.support).state
        outputs = self.learner.predict(self.asking(in_use, stage), state, episodes.query)
        loss = self.loss(outputs, episodes.targets, episodes.query.mask).mean()
        return Outcome(loss, outputs, averaged(params, fresh))

    def loss(self, outputs: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
        """Mean loss of each task [T]: cross-entropy or squared error, over queries where `mask` [T, Q] is true."""
        return task_loss(self.learner.spec.task_kind, outputs, targets, mask)

"""Reptile."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from innerloop_learner.gradient_learner import GradientLearner
from innerloop_learner.inner_loop import inner_loop
from innerloop_learner.loops import Index
from innerloop_learner.losses import task_loss
from innerloop_learner.objectives import Objective, Stage
from innerloop_learner.objectives.objective import averaged, refitted
from innerloop_learner.settings import setting
from innerloop_learner.tasks import Episodes, Params, Support
from innerloop_trainer.outer_loop.estimators.estimator import Estimate, Estimator, estimators


@dataclass(frozen=True)
class ReptileSettings:
    """How Reptile trains on a task."""

    train_steps: int = setting(6, "inner steps in training", least=1)
    batch: int = setting(10, "examples per inner step in training", least=1)


@estimators.register("reptile")
class Reptile(Estimator):
    """The way back from weights that were trained on a task (Nichol, Achiam and Schulman 2018).

    With weights U(w) after some steps from w on minibatches of all examples of a task, support and query together:

        w - E_task U(w)      (algorithm 2; with one task per outer step algorithm 1)

    No gradient goes through the inner loop. One task per outer step is the serial version, several are the batched one.
    The paper moves the weights by a share of the difference, annealed to zero; here the optimizer takes the difference
    as a gradient. Queries are learned from too, so loss and outputs are figures of training only.

    Raises:
        ValueError: the learner has no inner loop, has an update rule with learned parameters, a weighting, noise or a
            support policy.
    """

    asks_objective = False
    settings_class = ReptileSettings
    settings: ReptileSettings
    in_parts = True

    def __init__(self, objective: Objective, settings: Any) -> None:
        super().__init__(objective, settings)
        learner = objective.learner
        if not isinstance(learner, GradientLearner):
            raise ValueError(f"{learner.info.name} has no inner loop of gradient steps to follow")
        if learner.rule.init(torch.Generator(), {"weight": torch.zeros(1)}):
            raise ValueError("the update rule has parameters, which Reptile can't learn; take sgd or adam")
        if learner.weighting.init(torch.Generator()) or learner.backbone.noise.random:
            raise ValueError(
                "Reptile changes the weights that inner steps change, so it learns neither weights of examples nor "
                "noise; leave them out, or take --estimator backpropagation"
            )
        if learner.spec.support_policy != "none":
            raise ValueError(
                "Reptile learns from the examples of a task as they are, so it can't learn with copies of them; leave "
                "the support policy out, or take --estimator backpropagation"
            )
        self._learner = learner

    @torch.no_grad()
    def estimate(self, params: Params, carried: Params, episodes: Episodes, stage: Stage) -> Estimate:
        """See Estimator.estimate."""
        del carried
        learner, query = self._learner, episodes.query
        fresh = refitted(learner, params, episodes.support)
        in_use = {**params, **fresh}
        together = _together(episodes)
        weights = self._train(in_use, together, stage)
        state = learner.state_after(in_use, weights, together, learner.frozen_features(in_use, together), 0)
        outputs = learner.predict(in_use, state, query)
        loss = task_loss(learner.spec.task_kind, outputs, episodes.targets, query.mask).mean()
        gradients = {name: params[name] - weight.mean(0) for name, weight in weights.items()}
        return Estimate(gradients, averaged(params, fresh), loss, outputs)

    def _train(self, params: Params, examples: Support, stage: Stage) -> Params:
        """U(w): weights [T, ...] after steps on minibatches, which go through the examples in random order."""
        learner, steps = self._learner, self.settings.train_steps
        count = examples.y.shape[1]
        size = min(self.settings.batch, count)
        passes = -(-steps * size // count)

        def make(stage: Stage) -> Params:
            generator = stage.generator()
            return {"order": torch.cat([torch.randperm(count, generator=generator) for _ in range(passes)])}

        order = stage.made(make, examples.y.device)["order"]

        # Weights are those of the whole task, since classes differ within a minibatch by chance only.
        task_weights = learner.example_weights(examples)

        def loss(step: Index, weights: Params, twice: bool) -> Tensor:
            chosen = order[step * size : (step + 1) * size]
            x, y, mask, counts = (each[:, chosen] for each in (examples.x, examples.y, examples.mask, task_weights))
            batch = replace(examples, x=x, y=y, mask=mask)
            support_loss = learner.support_loss(params, batch, learner.frozen_features(params, batch), counts)
            return support_loss(step, weights, twice)

        return inner_loop(loss, learner.adapted(params), learner.rule, params, steps, examples.tasks, order=1).weights


def _together(episodes: Episodes) -> Support:
    """Join support and query examples of each task, [T, S + Q, ...]."""
    support, query = episodes.support, episodes.query
    pairs = ((support.x, query.x), (support.y, episodes.targets), (support.mask, query.mask))
    x, y, mask = (torch.cat(pair, dim=1) for pair in pairs)
    return Support(x, y, mask, support.ways, support.max_ways)

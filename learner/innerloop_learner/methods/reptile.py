"""Reptile."""

from dataclasses import replace

import torch
from torch import Tensor

from innerloop_learner.inner_loop import inner_loop
from innerloop_learner.learner import Objective, Stage, TrainingDefaults, methods
from innerloop_learner.loops import Index
from innerloop_learner.losses import UNUSED_LOGIT
from innerloop_learner.methods.maml import MAML
from innerloop_learner.norms import running_average
from innerloop_learner.tasks import Episodes, Params, Support
from innerloop_learner.update_rules import update_rules


@methods.register("reptile")
class Reptile(MAML):
    """Moves the initialisation towards the weights that training on a task leads to (Nichol, Achiam and Schulman 2018).

    With weights U(w) after some steps on minibatches of all examples of a task, support and query together:

        gradient of the outer loss:  w - E_task U(w)      (algorithm 2; with one task per outer step algorithm 1)

    No gradient goes through the inner loop. One task per outer step is the serial version, several are the batched one.
    The paper moves a share of the way, annealed to nothing; here the trainer's optimizer takes the difference for a
    gradient.

    Settings (`spec.settings`):
        steps: inner steps at serving unless a request names another number, on the whole support set each.
        max_steps: most steps a request may ask for.
        update_rule, rate: of the inner loop; the paper takes Adam without momentum, "adam".
        train_steps: inner steps in training.
        batch: examples per inner step in training.
    """

    info = replace(
        MAML.info,
        name="reptile",
        paper="Nichol, Achiam, Schulman: On First-Order Meta-Learning Algorithms. arXiv:1803.02999",
        training=TrainingDefaults(queries=10, meta_batch=5, iterations=20000),
    )

    def _configure(
        self,
        steps: int = 20,
        max_steps: int = 100,
        update_rule: str = "sgd",
        rate: float = 0.1,
        train_steps: int = 6,
        batch: int = 10,
    ) -> None:
        if min(train_steps, batch) < 1:
            raise ValueError(f"train_steps and batch must be at least 1, not {train_steps} and {batch}")
        self._take_steps(steps, max_steps)
        self.rule = update_rules[update_rule](rate=rate)
        if self.rule.init(torch.Generator(), {"weight": torch.zeros(1)}):
            raise ValueError(f"update_rule {update_rule} learns parameters, which Reptile can't; take sgd or adam")
        self._train_steps, self._batch = train_steps, batch

    def objective(self, params: Params, episodes: Episodes, stage: Stage) -> Objective:
        """See Learner.objective; the loss is that of the queries, the gradient Reptile's.

        The queries were among the examples learned from, so that loss and outputs tell of training only.
        """
        fresh = self.refit_buffers(params, episodes.support)
        in_use = {**params, **fresh}
        together = _together(episodes)
        with torch.no_grad():
            weights = self._train(in_use, together, stage)
            outputs = self.predict(in_use, self._state(in_use, weights, together, None, 0), episodes.query)
            loss = self.loss(outputs, episodes.targets, episodes.query.mask).mean()
        goals = {name: weight.mean(0) for name, weight in weights.items()}
        distance = torch.stack([(params[name] - goal).square().sum() / 2 for name, goal in goals.items()]).sum()
        return Objective(loss + distance - distance.detach(), outputs, running_average(params, fresh))

    def _train(self, params: Params, examples: Support, stage: Stage) -> Params:
        """U(w): weights [T, ...] after steps on minibatches, which go through the examples in random order."""
        count = examples.y.shape[1]
        size = min(self._batch, count)
        passes = -(-self._train_steps * size // count)
        generator = stage.generator()
        order = torch.cat([torch.randperm(count, generator=generator) for _ in range(passes)]).to(examples.y.device)

        def loss(step: Index, weights: Params) -> Tensor:
            chosen = order[step * size : (step + 1) * size]
            x, y, mask = (each[:, chosen] for each in (examples.x, examples.y, examples.mask))
            merged = {**params, **weights}
            features = self.backbone.apply(merged, x, mask)
            return self.loss(self._outputs(merged, features.values, examples.ways, UNUSED_LOGIT), y, mask)

        initial = self._adapted(params)
        return inner_loop(loss, initial, self.rule, params, self._train_steps, examples.tasks, order=1).weights


def _together(episodes: Episodes) -> Support:
    """All examples of each task."""
    support, query = episodes.support, episodes.query
    pairs = ((support.x, query.x), (support.y, episodes.targets), (support.mask, query.mask))
    x, y, mask = (torch.cat(pair, dim=1) for pair in pairs)
    return Support(x, y, mask, support.ways, support.max_ways)

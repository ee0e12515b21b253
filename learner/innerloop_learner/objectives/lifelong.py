"""The loss after learning classes one by one: on the last ones, and on all that should not be forgotten."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from innerloop_learner.layers import glorot
from innerloop_learner.learner import Learner
from innerloop_learner.losses import classification_loss
from innerloop_learner.methods.oml import OML
from innerloop_learner.objectives.objective import Objective, Outcome, Stage, averaged, objectives, refitted
from innerloop_learner.online_head import START, OnlineHead
from innerloop_learner.settings import SettingsError, setting
from innerloop_learner.tasks import Episodes, Params, Support, TaskState

CLASSIFIER = "classifier.rows"


@dataclass(frozen=True)
class LifelongSettings:
    """How an episode is learned."""

    trajectory: int = setting(
        0,
        "classes of an episode that are learned online, into a head that knows all training classes otherwise, as in "
        "the paper; zero for all of them, into an empty head",
        least=0,
    )


@objectives.register("lifelong")
class Lifelong(Objective):
    """The loss after learning class after class (Javed and White 2019, equation 4).

        W_0 = a fresh head,   W_{t+1} = W_t - a * grad L(W_t; x_t, y_t),   loss = L(W_S; queries of all classes)

    Gradients go back through all steps to the features, to the rate, to the row that classes begin with, and to the
    strengths of an importance. Most queries are of classes that were learned before others, so forgetting costs.

    With a `trajectory` of some classes the head begins with rows for all training classes, as in the paper. Rows of the
    trajectory begin anew and are learned online. The loss is that of all queries and of the other classes' support
    examples, over all training classes; these are what is to be remembered. The rows are meta-learned. They belong to
    the objective and are not served.

    Raises:
        SettingsError: there is a trajectory, but the data has no training classes.
    """

    settings_class = LifelongSettings
    settings: LifelongSettings
    trains = OML
    learner: OML

    def __init__(self, learner: Learner, settings: Any) -> None:
        super().__init__(learner, settings)
        self.needs_classes = self.settings.trajectory > 0
        if self.needs_classes and not learner.spec.train_classes:
            raise SettingsError(f"{learner.info.name} remembers training classes, but the data names none")

    def init(self, generator: torch.Generator) -> Params:
        """See Objective.init: with a trajectory, rows [K, F + 1] for K training classes."""
        if not self.settings.trajectory:
            return {}
        rows = glorot(generator, self.learner.spec.train_classes, self.learner.backbone.features)
        return {CLASSIFIER: torch.cat([rows, torch.zeros_like(rows[:, :1])], 1)}

    def __call__(self, params: Params, episodes: Episodes, stage: Stage) -> Outcome:
        """See Objective.__call__; the outputs are the queries' logits for the classes of their episode."""
        fresh = refitted(self.learner, params, episodes.support)
        in_use = {**params, **fresh}
        embedded = self._embedded(in_use, episodes, stage)
        after = self._after_trajectory if self.settings.trajectory else self._after_all
        loss, outputs = after(in_use, embedded)
        return Outcome(loss, outputs, averaged(params, fresh))

    def _embedded(self, params: Params, episodes: Episodes, stage: Stage) -> Episodes:
        """The episodes with features [T, N, F] as inputs, the support set class by class."""
        support, query, learner = episodes.support, episodes.query, self.learner
        of_support = learner.embed(params, support.x, learner.example_weights(support))
        of_queries = learner.embed(self.asking(params, stage), query.x, query.mask, of_support.statistics)
        ordered = _class_by_class(replace(support, x=of_support.values))
        return replace(episodes, support=ordered, query=replace(query, x=of_queries.values))

    def _after_all(self, params: Params, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """Loss and outputs after learning all classes."""
        support, query, head = episodes.support, episodes.query, self.learner.head
        state = head.learn(params, head.start(params, support.tasks, support.max_ways), support.x, support)
        outputs = head.outputs(params, state, query.x)
        return classification_loss(outputs, episodes.targets, query.mask).mean(), outputs

    def _after_trajectory(self, params: Params, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """Loss and outputs after learning the first classes into a head that knows the others."""
        support, query, classes = episodes.support, episodes.query, episodes.classes
        if classes is None:
            raise ValueError("a trajectory needs episodes that name their classes")
        ways, known = classes.shape[1], self.learner.spec.train_classes
        learned = min(self.settings.trajectory, ways) * (support.y.shape[1] // ways)
        named = replace(support, y=classes.gather(1, support.y), max_ways=known)
        online, others = _rows(named, slice(learned)), _rows(named, slice(learned, None))
        head = self.learner.head.with_outputs(known)
        state = head.learn(params, self._known(params, head, classes), online.x, online)
        logits = head.outputs(params, state, torch.cat([query.x, others.x], 1))  # [T, Q + S', K]
        labels = torch.cat([classes.gather(1, episodes.targets), others.y], 1)
        loss = classification_loss(logits, labels, torch.cat([query.mask, others.mask], 1)).mean()
        answers = logits[:, : query.x.shape[1]]
        return loss, answers.gather(2, classes.unsqueeze(1).expand(-1, answers.shape[1], -1))

    def _known(self, params: Params, head: OnlineHead, classes: Tensor) -> TaskState:
        """The state of a head that knows all training classes but those of the trajectory; classes are [T, W]."""
        rows = params[CLASSIFIER]
        trajectory = classes[:, : self.settings.trajectory]
        anew = torch.zeros(classes.shape[0], rows.shape[0], dtype=torch.bool, device=rows.device)
        anew = anew.scatter(1, trajectory, torch.ones_like(trajectory, dtype=torch.bool))
        return head.resumed(params, torch.where(anew.unsqueeze(-1), params[START], rows))


def _class_by_class(support: Support) -> Support:
    """The same features [T, S, F], those of the first class first; padding last."""
    order = support.y.masked_fill(~support.mask, support.max_ways).argsort(dim=1, stable=True)
    x = support.x.gather(1, order.unsqueeze(-1).expand(-1, -1, support.x.shape[2]))
    return replace(support, x=x, y=support.y.gather(1, order), mask=support.mask.gather(1, order))


def _rows(support: Support, rows: slice) -> Support:
    return replace(support, x=support.x[:, rows], y=support.y[:, rows], mask=support.mask[:, rows])

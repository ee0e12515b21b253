"""The loss of the answers to queries."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from innerloop_learner.learner import Learner
from innerloop_learner.losses import task_loss
from innerloop_learner.objectives.objective import Objective, Outcome, Stage, averaged, objectives, refitted
from innerloop_learner.settings import SettingsError, setting
from innerloop_learner.tasks import Episodes, Params, Query


@dataclass(frozen=True)
class QueryLossSettings:
    """Settings of the loss of the answers to queries."""

    in_turn: bool = setting(
        False,
        "whether all examples of a training task are support examples in turn, with one pass through the backbone; for "
        "methods whose features do not depend on the support set",
    )


@objectives.register("query_loss")
class QueryLoss(Objective):
    """The mean loss of a task's queries after adapting.

    In symbols, it is E_task L_Q(predict(adapt(S), Q)).

    With `in_turn`, the n examples of a class, support and queries, stand in a ring: in turn number r of n those from
    place r on are its support examples, as many as the task has shots, and all others are queries. The loss is the mean
    over turns. Features are computed once, so that an outer step costs what it did and learns from n times as many
    pairs of support example and query. That episodes leave such pairs out is what Laenen and Bertinetto (On Episodes,
    Prototypical Networks, and Few-Shot Learning, 2021) find wrong with them. Features that training disturbs, as by
    dropping, are disturbed in support examples, too, since there is one pass for both.

    Raises:
        SettingsError: `in_turn` with a learner whose features depend on the support set.
    """

    settings_class = QueryLossSettings
    settings: QueryLossSettings

    def __init__(self, learner: Learner, settings: Any) -> None:
        super().__init__(learner, settings)
        if self.settings.in_turn and not (learner.leaves_out and learner.spec.task_kind == "classification"):
            raise SettingsError(
                f"in_turn computes the features of a task's examples once, and those of this {learner.info.name} model "
                "depend on its support set, or it knows no classes; leave in_turn out"
            )

    def __call__(self, params: Params, episodes: Episodes, stage: Stage) -> Outcome:
        """See Objective.__call__; with `in_turn`, the outputs are those of the turn with the episodes' support set."""
        if self.settings.in_turn:
            return self._in_turn(params, episodes, stage)
        fresh = refitted(self.learner, params, episodes.support)
        in_use = {**params, **fresh}
        state = self.learner.adapt(in_use, episodes.support).state
        outputs = self.learner.predict(self.asking(in_use, stage), state, episodes.query)
        loss = self.loss(outputs, episodes.targets, episodes.query.mask).mean()
        return Outcome(loss, outputs, averaged(params, fresh))

    def _in_turn(self, params: Params, episodes: Episodes, stage: Stage) -> Outcome:
        support, query = episodes.support, episodes.query
        x = torch.cat([support.x, query.x], 1)
        embedded = self.learner.backbone.refitted(self.asking(params, stage), x, x.new_ones(x.shape[:2]))
        examples = support.x.shape[1]
        features = replace(
            episodes,
            support=replace(support, x=embedded.values[:, :examples]),
            query=replace(query, x=embedded.values[:, examples:]),
        )
        learner, losses, outputs = self.learner.on_features, [], []
        for turn in in_turns(features):
            answers = learner.predict(params, learner.adapt(params, turn.support).state, turn.query)
            losses.append(self.loss(answers, turn.targets, turn.query.mask).mean())
            outputs.append(answers)
        return Outcome(torch.stack(losses).mean(), outputs[0], averaged(params, embedded.statistics))

    def loss(self, outputs: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
        """Mean loss of each task [T]: cross-entropy or squared error, over queries where `mask` [T, Q] is true."""
        return task_loss(self.learner.spec.task_kind, outputs, targets, mask)


def in_turns(episodes: Episodes) -> Iterator[Episodes]:
    """Episodes of the same examples [T, N, ...], in which each is a support example as often as any other.

    Args:
        episodes: tasks that name their classes, without padding, and with the same number of support examples, and of
            queries, for each class.

    Yields:
        the episodes as they are, then a turn for each further example of a class.
    """
    yield episodes
    support, query, classes = episodes.support, episodes.query, episodes.classes
    if classes is None:
        raise ValueError("examples take turns by classes, and these episodes name none")
    x, y, ways = torch.cat([support.x, query.x], 1), torch.cat([support.y, episodes.targets], 1), classes.shape[1]
    rings = y.argsort(dim=1, stable=True).view(len(y), ways, -1)  # [T, W, n], support examples first
    shots = support.x.shape[1] // ways
    for turn in range(1, rings.shape[2]):
        places = rings.roll(-turn, 2)
        asked, examples = places[..., shots:].flatten(1), places[..., :shots].flatten(1)
        yield replace(
            episodes,
            support=replace(support, x=_taken(x, examples), y=y.gather(1, examples)),
            query=Query(_taken(x, asked), query.mask),
            targets=y.gather(1, asked),
        )


def _taken(x: Tensor, places: Tensor) -> Tensor:
    """The examples [T, K, ...] at places [T, K] of x [T, N, ...]."""
    return x[torch.arange(len(x), device=x.device).unsqueeze(1), places]

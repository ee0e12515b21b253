"""Pre-train, then answer with what is nearest in the space of features."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.extension import appended, appended_members
from innerloop_learner.heads import mask_unused_ways
from innerloop_learner.layers import squared_distances
from innerloop_learner.learner import Learner, MethodInfo, methods
from innerloop_learner.losses import UNUSED_LOGIT, log_weights
from innerloop_learner.methods.protonet import ProtoNet
from innerloop_learner.settings import setting
from innerloop_learner.state import STATISTICS, WAYS, prefixed, section
from innerloop_learner.tasks import Adapted, Params, Query, Support, TaskState

SCALE = 10.0
"""Factor that takes squared distances between unit vectors, which lie between 0 and 4, to logits."""

ROUNDING = 1e-3
"""Tolerance when weights of neighbours are added up to k, since weights such as 1/3 do not sum to it exactly."""

EMBEDDINGS, VOTES = "embeddings", "votes"


@methods.register("nearest-centroid")
class NearestCentroid(ProtoNet):
    """The nearest class mean among a classifier's features (Wang et al. 2019, section 3, L2N).

        logits_k(x) = -s |f(x) / |f(x)| - c_k|^2,   c_k = mean of f / |f| over the support examples of class k

    ProtoNet's way to answer without its way to train.
    """

    info: ClassVar[MethodInfo] = replace(
        ProtoNet.info,
        name="nearest-centroid",
        family="baseline",
        paper="Wang, Chao, Weinberger, van der Maaten: SimpleShot. arXiv:1911.04623",
        objective="all_classes",
    )
    weighs_examples = False  # its training has no tasks in which labels could be wrong
    augments_support = False  # nor tasks that could learn a policy

    def _embed(self, params: Params, x: Tensor, weights: Tensor, statistics: Params) -> tuple[Tensor, Params]:
        values, computed = super()._embed(params, x, weights, statistics)
        return F.normalize(values, dim=-1) * SCALE**0.5, computed


@dataclass(frozen=True)
class NearestNeighboursSettings:
    """How many neighbours vote."""

    k: int = setting(1, "neighbours asked, by the sum of their weights; at most all there are", least=1)


@methods.register("knn")
class NearestNeighbours(Learner):
    """k nearest neighbours among a classifier's features (Cover and Hart 1967).

    With the support examples i nearest to x whose weights w_i (`Learner.example_weights`) together make k, distances
    d_i between unit vectors and labels y_i:

        logits_c(x) = log sum_{i: y_i = c} w_i exp(-s d_i^2)

    so that nearer neighbours count more and classes without any come last. Where all classes have equally many
    examples these are the k nearest, and with k = 1 the nearest one decides alone.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        name="knn",
        family="baseline",
        paper="Cover, Hart: Nearest Neighbor Pattern Classification. IEEE Transactions on Information Theory 1967",
        gradients_at_serving=False,
        order_matters=False,
        ways_can_change="any",
        tasks=("classification",),
        objective="all_classes",
        extends=True,
    )
    settings_class = NearestNeighboursSettings
    settings: NearestNeighboursSettings
    embeds_alone = True

    def init(self, generator: torch.Generator) -> Params:
        """See Learner.init."""
        return self.backbone.init(generator)

    def adapt(self, params: Params, support: Support, steps: int | None = None) -> Adapted:
        """See Learner.adapt; state: embeddings [T, S, F] and votes [T, S, W], an example's weight for its class."""
        del steps
        examples = self.example_weights(support)
        features = self.backbone.apply(params, support.x, examples)
        votes = self.votes(support.members(examples.dtype))
        statistics = prefixed(STATISTICS, features.statistics)
        embeddings = F.normalize(features.values, dim=-1)
        return Adapted({EMBEDDINGS: embeddings, VOTES: votes, WAYS: support.ways, **statistics}, None)

    def _extend(self, params: Params, state: TaskState, support: Support, steps: int | None) -> Adapted:
        """See Learner.extend: examples are appended, and votes shared out again."""
        del steps
        features = self.backbone.apply(params, support.x, self.example_weights(support)).values
        embeddings = appended(state[EMBEDDINGS], F.normalize(features, dim=-1))
        votes = self.votes(appended_members(state[VOTES], support))
        return Adapted({EMBEDDINGS: embeddings, VOTES: votes, WAYS: support.ways}, None)

    def predict(self, params: Params, state: TaskState, query: Query) -> Tensor:
        """See Learner.predict."""
        votes = state[VOTES]
        features = self.backbone.apply(params, query.x, query.mask, section(state, STATISTICS)).values
        distances = squared_distances(F.normalize(features, dim=-1), state[EMBEDDINGS])  # [T, Q, S]
        weights = votes.sum(-1).unsqueeze(1)  # [T, 1, S]
        similarities = (-SCALE * distances).masked_fill(weights == 0, UNUSED_LOGIT)
        asked = similarities.masked_fill(similarities < self._least_asked(similarities, weights), UNUSED_LOGIT)
        by_class = asked.unsqueeze(-1) + log_weights(votes).unsqueeze(1)  # [T, Q, S, W]
        return mask_unused_ways(by_class.logsumexp(2).clamp(min=UNUSED_LOGIT), state[WAYS], -torch.inf)

    def _least_asked(self, similarities: Tensor, weights: Tensor) -> Tensor:
        """The similarity [T, Q, 1] of the farthest neighbour that votes: weights [T, 1, S] up to it sum to k."""
        nearest = similarities.topk(similarities.shape[-1], dim=-1)  # every exporter knows this kind of sort
        asked = weights.expand_as(similarities).gather(-1, nearest.indices).cumsum(-1)
        enough = asked >= self.settings.k - ROUNDING
        return nearest.values.masked_fill(~enough, UNUSED_LOGIT).amax(-1, keepdim=True)

"""Pre-train, then answer with what is nearest in the space of features."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.heads import mask_unused_ways
from innerloop_learner.learner import Learner, MethodInfo, methods
from innerloop_learner.losses import UNUSED_LOGIT
from innerloop_learner.methods.protonet import ProtoNet, squared_distances
from innerloop_learner.settings import setting
from innerloop_learner.state import STATISTICS, WAYS, prefixed, section
from innerloop_learner.tasks import Adapted, Params, Query, Support, TaskState

SCALE = 10.0
"""Of squared distances between unit vectors, which lie between 0 and 4, in logits."""


@methods.register("nearest-centroid")
class NearestCentroid(ProtoNet):
    """Nearest class mean among features of a classifier of all training classes (Wang et al. 2019, section 3, L2N).

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

    def _embed(self, params: Params, x: Tensor, mask: Tensor, statistics: Params) -> tuple[Tensor, Params]:
        values, computed = super()._embed(params, x, mask, statistics)
        return F.normalize(values, dim=-1) * SCALE**0.5, computed


@dataclass(frozen=True)
class NearestNeighboursSettings:
    """How many neighbours vote."""

    k: int = setting(1, "neighbours asked, at most all there are", least=1)


@methods.register("knn")
class NearestNeighbours(Learner):
    """k nearest neighbours among features of a classifier of all training classes (Cover and Hart 1967).

    With the k support examples i nearest to x, distances d_i between unit vectors and labels y_i:

        logits_c(x) = log sum_{i: y_i = c} exp(-s d_i^2)

    so that nearer neighbours count more and classes without any come last; with k = 1 the nearest one decides alone.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        name="knn",
        family="metric",
        paper="Cover, Hart: Nearest Neighbor Pattern Classification. IEEE Transactions on Information Theory 1967",
        gradients_at_serving=False,
        order_matters=False,
        ways_can_change="any",
        tasks=("classification",),
        objective="all_classes",
    )
    settings_class = NearestNeighboursSettings
    settings: NearestNeighboursSettings

    def init(self, generator: torch.Generator) -> Params:
        """See Learner.init."""
        return self.backbone.init(generator)

    def adapt(self, params: Params, support: Support, steps: int | None = None) -> Adapted:
        """See Learner.adapt; state: embeddings [T, S, F] and one-hot labels [T, S, W], zero for padding."""
        del steps
        features = self.backbone.apply(params, support.x, support.mask)
        labels = support.members(features.values.dtype)
        statistics = prefixed(STATISTICS, features.statistics)
        embeddings = F.normalize(features.values, dim=-1)
        return Adapted({"embeddings": embeddings, "labels": labels, WAYS: support.ways, **statistics}, None)

    def predict(self, params: Params, state: TaskState, query: Query) -> Tensor:
        """See Learner.predict."""
        labels = state["labels"]
        features = self.backbone.apply(params, query.x, query.mask, section(state, STATISTICS)).values
        distances = squared_distances(F.normalize(features, dim=-1), state["embeddings"])  # [T, Q, S]
        padding = labels.sum(-1).unsqueeze(1) == 0
        similarities = (-SCALE * distances).masked_fill(padding, UNUSED_LOGIT)
        # Filled up to k, not k cut down to S: a traced graph has one k, and S is free in it.
        filled = F.pad(similarities, (0, self.settings.k - 1), value=UNUSED_LOGIT)
        nearest = filled.topk(self.settings.k, dim=-1).values[..., -1:]
        asked = similarities.masked_fill(similarities < nearest, UNUSED_LOGIT)
        votes = asked.unsqueeze(-1) + (1 - labels.unsqueeze(1)) * UNUSED_LOGIT  # [T, Q, S, W]
        return mask_unused_ways(votes.logsumexp(2).clamp(min=UNUSED_LOGIT), state[WAYS], -torch.inf)

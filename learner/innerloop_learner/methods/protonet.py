"""Prototypical networks."""

from typing import ClassVar

import torch
from torch import Tensor

from innerloop_learner.extension import extended_means, kept
from innerloop_learner.heads import mask_unused_ways
from innerloop_learner.layers import squared_distances
from innerloop_learner.learner import Learner, MethodInfo, methods
from innerloop_learner.state import COUNTS, STATISTICS, WAYS, prefixed, section
from innerloop_learner.tasks import Adapted, Params, Query, Support, TaskState

PROTOTYPES = "prototypes"


@methods.register("protonet")
class ProtoNet(Learner):
    """The nearest class mean in a learned embedding (Snell, Swersky and Zemel 2017, equations 1 and 2).

        c_k = mean of f(x) over the support examples of class k,   logits_k(x) = -|f(x) - c_k|^2

    Examples count in the mean as the weighting says, where there is one (`LearnerSpec.weighting`).

    Nothing is fixed to a number of ways: a model may train on many more than it serves, which helps.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        name="protonet",
        family="metric",
        paper="Snell, Swersky, Zemel: Prototypical Networks for Few-shot Learning. NeurIPS 2017",
        gradients_at_serving=False,
        order_matters=False,
        ways_can_change="any",
        tasks=("classification",),
        extends=True,
    )
    weighs_examples = True
    augments_support = True
    embeds_alone = True

    def init(self, generator: torch.Generator) -> Params:
        """See Learner.init."""
        return {**self.backbone.init(generator), **self.weighting.init(generator), **self.support_policy.init()}

    def adapt(self, params: Params, support: Support, steps: int | None = None) -> Adapted:
        """See Learner.adapt; state: prototypes [T, W, F], zero for unused ways, and numbers of examples [T, W]."""
        del steps
        enlarged, counts = self.support_policy.enlarge(params, support)
        values, computed = self._embed(params, enlarged.x, self.example_weights(enlarged), {})
        learned = self.weighting.weigh(params, support, lambda: values)
        prototypes = enlarged.shares(values.dtype, counts if learned is None else learned).transpose(1, 2) @ values
        statistics = prefixed(STATISTICS, computed)
        means = {PROTOTYPES: prototypes, COUNTS: support.counts(values.dtype)}
        return Adapted({**means, WAYS: support.ways, **statistics}, None, learned)

    def _extend(self, params: Params, state: TaskState, support: Support, steps: int | None) -> Adapted:
        """See Learner.extend: a class mean goes on with the number of examples that it is of."""
        del steps
        values, _ = self._embed(params, support.x, self.example_weights(support), {})
        prototypes, counts = extended_means(state[PROTOTYPES], kept(state, COUNTS), values, support)
        return Adapted({PROTOTYPES: prototypes, COUNTS: counts, WAYS: support.ways}, None)

    def _left_out(self, params: Params, features: Support, parts: Tensor, steps: int | None) -> Tensor:
        """See Learner._left_out: without one example x of n, f(x) - c is n / (n - 1) times as long."""
        if parts.shape[2] > 1 or self.spec.weighting != "none":
            return super()._left_out(params, features, parts, steps)
        values, _ = self._embed(params, features.x, self.example_weights(features), {})
        members = features.members(values.dtype)  # [T, S, W]
        prototypes = features.shares(values.dtype).transpose(1, 2) @ values
        counts = members @ members.sum(1).unsqueeze(-1)  # [T, S, 1]
        factors = counts / (counts - 1).clamp(min=1)
        own = ((values - members @ prototypes) * factors).square().sum(-1, keepdim=True)
        distances = torch.where(members > 0, own, squared_distances(values, prototypes))
        return mask_unused_ways(-distances, features.ways, -torch.inf)

    def predict(self, params: Params, state: TaskState, query: Query) -> Tensor:
        """See Learner.predict."""
        values, _ = self._embed(params, query.x, query.mask, section(state, STATISTICS))
        return mask_unused_ways(-squared_distances(values, state[PROTOTYPES]), state[WAYS], -torch.inf)

    def _embed(self, params: Params, x: Tensor, weights: Tensor, statistics: Params) -> tuple[Tensor, Params]:
        """Embeddings [T, N, F], and the statistics computed on the way; arguments as `Backbone.apply` takes them."""
        return self.backbone.apply(params, x, weights, statistics)

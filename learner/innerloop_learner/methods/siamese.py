"""Siamese networks."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from innerloop_learner.extension import appended, appended_members
from innerloop_learner.heads import mask_unused_ways
from innerloop_learner.layers import glorot, linear
from innerloop_learner.learner import Learner, MethodInfo, methods
from innerloop_learner.settings import setting
from innerloop_learner.state import STATISTICS, WAYS, prefixed, section
from innerloop_learner.tasks import Adapted, Params, Query, Support, TaskState

EMBEDDINGS, SHARES = "embeddings", "shares"
DENSE_WEIGHT, DENSE_BIAS = "siamese.dense.weight", "siamese.dense.bias"
WEIGHTS, SHIFT = "siamese.weights", "siamese.shift"

EXAMPLES_AT_ONCE = 32
"""Number of support examples that all queries are compared with at a time, which bounds the memory for pairs."""


@dataclass(frozen=True)
class SiameseSettings:
    """Size of the embedding."""

    embedding: int = setting(256, "size of the embedding h that is compared", least=1)


@methods.register("siamese")
class SiameseNetwork(Learner):
    """Says of two examples whether they are of one class (Koch, Zemel and Salakhutdinov 2015, section 3.1).

        h(x) = sigmoid(A f(x) + b),   score(x, x') = sum_j w_j |h_j(x) - h_j(x')| + c,   P(same class) = sigmoid(score)

    A class's logit is the mean score of its support examples; with one shot that is the paper's comparison. Training
    minimises the binary cross-entropy of queries against all classes, right and wrong ones of equal weight.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        name="siamese",
        family="metric",
        paper="Koch, Zemel, Salakhutdinov: Siamese Neural Networks for One-shot Image Recognition. ICML workshop 2015",
        gradients_at_serving=False,
        order_matters=False,
        ways_can_change="any",
        tasks=("classification",),
        objective="verification",
        extends=True,
    )
    settings_class = SiameseSettings
    settings: SiameseSettings
    embeds_alone = True

    def init(self, generator: torch.Generator) -> Params:
        """See Learner.init; weights are negative at first, so that distance speaks against being of one class."""
        size = self.settings.embedding
        return {
            **self.backbone.init(generator),
            DENSE_WEIGHT: glorot(generator, size, self.backbone.features),
            DENSE_BIAS: torch.zeros(size),
            WEIGHTS: torch.full((size,), -0.1),
            SHIFT: torch.zeros(()),
        }

    def adapt(self, params: Params, support: Support, steps: int | None = None) -> Adapted:
        """See Learner.adapt; state: embeddings [T, S, E], and each class's share of its examples [T, S, W]."""
        del steps
        features = self.backbone.apply(params, support.x, self.example_weights(support))
        embeddings = self._embed(params, features.values)
        shares = support.shares(embeddings.dtype)
        statistics = prefixed(STATISTICS, features.statistics)
        return Adapted({EMBEDDINGS: embeddings, SHARES: shares, WAYS: support.ways, **statistics}, None)

    def _extend(self, params: Params, state: TaskState, support: Support, steps: int | None) -> Adapted:
        """See Learner.extend: examples are appended, and share in their classes again."""
        del steps
        features = self.backbone.apply(params, support.x, self.example_weights(support)).values
        embeddings = appended(state[EMBEDDINGS], self._embed(params, features))
        members = appended_members(state[SHARES], support)
        shares = members / members.sum(1, keepdim=True).clamp(min=1)
        return Adapted({EMBEDDINGS: embeddings, SHARES: shares, WAYS: support.ways}, None)

    def predict(self, params: Params, state: TaskState, query: Query) -> Tensor:
        """See Learner.predict."""
        features = self.backbone.apply(params, query.x, query.mask, section(state, STATISTICS)).values
        embeddings = self._embed(params, features)
        scores = [
            (embeddings.unsqueeze(2) - some.unsqueeze(1)).abs() @ params[WEIGHTS]  # of [T, Q, s, E]
            for some in torch.split(state[EMBEDDINGS], EXAMPLES_AT_ONCE, 1)
        ]
        logits = (torch.cat(scores, -1) + params[SHIFT]) @ state[SHARES]
        return mask_unused_ways(logits, state[WAYS], -torch.inf)

    def _embed(self, params: Params, features: Tensor) -> Tensor:
        return linear(features, params[DENSE_WEIGHT], params[DENSE_BIAS]).sigmoid()

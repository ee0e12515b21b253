"""Relation networks."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.extension import extended_means, kept
from innerloop_learner.heads import mask_unused_ways
from innerloop_learner.layers import conv2d, glorot, linear
from innerloop_learner.learner import Learner, MethodInfo, methods
from innerloop_learner.norms import LayerNorm
from innerloop_learner.settings import setting
from innerloop_learner.spec import LearnerSpec
from innerloop_learner.state import COUNTS, STATISTICS, WAYS, prefixed, section
from innerloop_learner.tasks import Adapted, Params, Query, Support, TaskState

CLASSES = "classes"
PREFIX = "relation."


@dataclass(frozen=True)
class RelationSettings:
    """Size of the network that compares."""

    hidden: int = setting(64, "outputs of the first of its two last layers", least=1)


@methods.register("relation")
class RelationNetwork(Learner):
    """Learns an embedding and how to compare in it (Sung et al. 2018, equations 1 and 2).

        r_k(x) = sigmoid(g([c_k, f(x)])),   loss = sum_k (r_k(x) - [y = k])^2,
        c_k = mean of f over the support examples of class k

    The paper sums; the mean lets one model serve any number of shots. g has two blocks of convolution, norm and ReLU on
    feature maps (linear layers where a backbone has no maps), without the paper's pooling, and two linear layers. Its
    norms look at one pair alone, so that an answer depends on nothing else. Logits are those of r.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        name="relation",
        family="metric",
        paper="Sung, Yang, Zhang, Xiang, Torr, Hospedales: Learning to Compare: Relation Network. CVPR 2018",
        gradients_at_serving=False,
        order_matters=False,
        ways_can_change="any",
        tasks=("classification",),
        objective="relation_scores",
        extends=True,
    )
    settings_class = RelationSettings
    settings: RelationSettings
    embeds_alone = True

    def __init__(self, spec: LearnerSpec) -> None:
        super().__init__(spec)
        channels = self.backbone.feature_shape[0]
        self._norms = [LayerNorm(f"{PREFIX}norm{block}", channels) for block in range(2)]

    def init(self, generator: torch.Generator) -> Params:
        """See Learner.init; the first block has weights for the class and for the query."""
        channels, *size = self.backbone.feature_shape
        kernel = (3, 3) if size else ()
        params = self.backbone.init(generator)
        for layer in ("class", "query", "block1"):
            params[f"{PREFIX}{layer}.weight"] = glorot(generator, channels, channels, *kernel)
            params[f"{PREFIX}{layer}.bias"] = torch.zeros(channels)
        for norm in self._norms:
            params |= norm.init()
        for layer, outputs, inputs in (
            ("hidden", self.settings.hidden, self.backbone.features),
            ("score", 1, self.settings.hidden),
        ):
            params[f"{PREFIX}{layer}.weight"] = glorot(generator, outputs, inputs)
            params[f"{PREFIX}{layer}.bias"] = torch.zeros(outputs)
        return params

    def adapt(self, params: Params, support: Support, steps: int | None = None) -> Adapted:
        """See Learner.adapt; state: the first block's share of each class [T, W, F], and numbers of examples [T, W]."""
        del steps
        features = self.backbone.apply(params, support.x, self.example_weights(support))
        means = support.shares(features.values.dtype).transpose(1, 2) @ features.values
        classes = self._layer(params, "class", means)
        statistics = prefixed(STATISTICS, features.statistics)
        state = {CLASSES: classes.flatten(2), COUNTS: support.counts(classes.dtype)}
        return Adapted({**state, WAYS: support.ways, **statistics}, None)

    def _extend(self, params: Params, state: TaskState, support: Support, steps: int | None) -> Adapted:
        """See Learner.extend: the layer is affine, so what it makes of a mean is the mean of what it makes of each."""
        del steps
        features = self.backbone.apply(params, support.x, self.example_weights(support))
        values = self._layer(params, "class", features.values).flatten(2)
        classes, counts = extended_means(state[CLASSES], kept(state, COUNTS), values, support)
        return Adapted({CLASSES: classes, COUNTS: counts, WAYS: support.ways}, None)

    def predict(self, params: Params, state: TaskState, query: Query) -> Tensor:
        """See Learner.predict."""
        features = self.backbone.apply(params, query.x, query.mask, section(state, STATISTICS)).values
        # A layer on two inputs side by side is the sum of a layer on each: W + Q applications, not W * Q.
        queries, classes = self._layer(params, "query", features).flatten(2), state[CLASSES]
        pairs = (queries.unsqueeze(2) + classes.unsqueeze(1)).flatten(1, 2)  # [T, Q * W, F]
        pairs = F.relu(self._normalise(0, params, pairs))
        pairs = F.relu(self._normalise(1, params, self._layer(params, "block1", pairs).flatten(2)))
        hidden = F.relu(linear(pairs, params[f"{PREFIX}hidden.weight"], params[f"{PREFIX}hidden.bias"]))
        scores = linear(hidden, params[f"{PREFIX}score.weight"], params[f"{PREFIX}score.bias"])
        return mask_unused_ways(scores.view(*queries.shape[:2], classes.shape[1]), state[WAYS], -torch.inf)

    def _layer(self, params: Params, name: str, features: Tensor) -> Tensor:
        """A convolution on features [T, N, F] as maps, or a linear layer where they are none."""
        weight, bias = params[f"{PREFIX}{name}.weight"], params[f"{PREFIX}{name}.bias"]
        if weight.dim() == 2:
            return linear(features, weight, bias)
        return conv2d(features.view(*features.shape[:2], *self.backbone.feature_shape), weight, bias)

    def _normalise(self, block: int, params: Params, features: Tensor) -> Tensor:
        """Layer normalisation of pairs [T, N, F], each by itself."""
        maps = features.view(*features.shape[:2], *self.backbone.feature_shape)
        return self._norms[block].apply(params, maps, torch.ones(()), {})[0].flatten(2)  # which needs no weights

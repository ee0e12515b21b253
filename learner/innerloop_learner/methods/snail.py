"""SNAIL."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.heads import LinearHead, mask_unused_ways
from innerloop_learner.layers import glorot, linear
from innerloop_learner.learner import Learner, MethodInfo, methods
from innerloop_learner.losses import UNUSED_LOGIT, log_weights
from innerloop_learner.settings import setting
from innerloop_learner.spec import LearnerSpec
from innerloop_learner.state import STATISTICS, WAYS, prefixed, section
from innerloop_learner.tasks import Adapted, Params, Query, Support, TaskState

EMBEDDING = 64
ATTENTION = ((64, 32), (256, 128), (512, 256))
"""Sizes of keys and values (Mishra et al. 2018, section 5.1)."""

PAST, EXAMPLES = "past", "examples"


Project = Callable[[Tensor], tuple[Tensor, Tensor]]


class Layer:
    """The linear maps of one layer.

    Args:
        params: meta-learned parameters.
        prefix: how the names of this layer's parameters begin.
    """

    def __init__(self, params: Params, prefix: str) -> None:
        self._params, self._prefix = params, prefix

    def __call__(self, name: str, x: Tensor) -> Tensor:
        """Apply the map of that name to x [T, N, C]."""
        return linear(x, self._params[f"{self._prefix}.{name}.weight"], self._params[f"{self._prefix}.{name}.bias"])

    def key_and_value(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of an attention layer."""
        return self("key", x), self("value", x)


class Context(ABC):
    """The earlier positions of the sequence that a position may read."""

    @abstractmethod
    def before(self, x: Tensor, distance: int) -> Tensor:
        """The activations `distance` positions before each position of x [T, N, C]; zeros before the beginning."""

    @abstractmethod
    def read(self, x: Tensor, query: Tensor, project: Project) -> Tensor:
        """Softmax attention of queries [T, N, K] over keys and values that `project` makes of activations."""


class OfSupport(Context):
    """Each position looks back at those before it in the same sequence, and at itself.

    Args:
        examples: weights of the positions in attention [T, S].
    """

    def __init__(self, examples: Tensor) -> None:
        self._examples = examples

    def before(self, x: Tensor, distance: int) -> Tensor:
        """See Context.before."""
        return F.pad(x, (0, 0, distance, 0))[:, : x.shape[1]]

    def read(self, x: Tensor, query: Tensor, project: Project) -> Tensor:
        """See Context.read."""
        keys, values = project(x)
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        scores = query @ keys.transpose(1, 2) / math.sqrt(keys.shape[-1]) + log_weights(self._examples).unsqueeze(1)
        return scores.masked_fill(later, UNUSED_LOGIT).softmax(-1) @ values


class OfQueries(Context):
    """Each query stands alone behind the end of the support sequence.

    Args:
        past: activations [T, S, C] of the whole network over the support set. The inputs of a layer are the first of
            these channels, since layers only append channels.
        examples: weights of its positions in attention [T, S], real examples first and zero for padding.
    """

    def __init__(self, past: Tensor, examples: Tensor) -> None:
        self._past, self._examples = past, examples
        self._length = (examples > 0).sum(1)

    def before(self, x: Tensor, distance: int) -> Tensor:
        """See Context.before; the same for every query, [T, 1, C]."""
        past = self._past[..., : x.shape[-1]]
        place = (self._length - distance).view(-1, 1, 1)
        found = past.gather(1, place.clamp(min=0).expand(-1, 1, past.shape[-1]))
        return torch.where(place >= 0, found, torch.zeros_like(found))

    def read(self, x: Tensor, query: Tensor, project: Project) -> Tensor:
        """See Context.read."""
        past = self._past[..., : x.shape[-1]]
        keys, values = project(past)
        own_keys, own_values = project(x)
        root = math.sqrt(keys.shape[-1])
        scores = query @ keys.transpose(1, 2) / root + log_weights(self._examples).unsqueeze(1)
        own = (query * own_keys).sum(-1, keepdim=True) / root
        weights = torch.cat([scores, own], -1).softmax(-1)
        return weights[..., :-1] @ values + weights[..., -1:] * own_values


@dataclass(frozen=True)
class SNAILSettings:
    """Size and reach of the network."""

    filters: int = setting(128, "outputs of each dense block; the paper has 128", least=1)
    context: int = setting(
        32, "positions that temporal convolutions reach back together; attention reaches all", least=2
    )


@methods.register("snail")
class SNAIL(Learner):
    """Reads the support set as a sequence, then answers (Mishra, Rohaninejad, Chen and Abbeel 2018).

    Inputs are features and labels side by side; a query's label is zeros. Blocks append their outputs to their inputs
    (figure 2), with * a causal convolution over this position and the one d before it:

        dense(d):   tanh(x * A) sigmoid(x * B)
        TC:         dense(1), dense(2), dense(4), ... up to the context
        attention:  softmax(q(x) k(x')' / sqrt(K) + log w') v(x')  over this position and those before

        attention(64, 32), TC, attention(256, 128), TC, attention(512, 256), linear

    Queries never see one another: each stands alone behind the support set, whose activations are the task state.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        name="snail",
        family="memory",
        paper="Mishra, Rohaninejad, Chen, Abbeel: A Simple Neural Attentive Meta-Learner. ICLR 2018",
        gradients_at_serving=False,
        order_matters=True,
        ways_can_change="fewer",
        tasks=("classification", "regression"),
    )
    settings_class = SNAILSettings
    settings: SNAILSettings
    embeds_alone = True

    def __init__(self, spec: LearnerSpec) -> None:
        super().__init__(spec)
        label = spec.max_ways if spec.task_kind == "classification" else spec.target_size
        self._input = EMBEDDING + label
        width = self._input
        depth = (self.settings.context - 1).bit_length()
        self._layers: list[tuple[str, int, int]] = []  # kind, its number or dilation, channels that enter
        for block, (_, values) in enumerate(ATTENTION):
            self._layers.append(("attention", block, width))
            width += values
            for power in range(depth if block < 2 else 0):
                self._layers.append((f"dense{block}", 2**power, width))
                width += self.settings.filters
        self._head = LinearHead.for_spec(spec, width)

    def init(self, generator: torch.Generator) -> Params:
        """See Learner.init."""
        params = self.backbone.init(generator)
        params["embedding.weight"] = glorot(generator, EMBEDDING, self.backbone.features)
        params["embedding.bias"] = torch.zeros(EMBEDDING)
        for kind, number, width in self._layers:
            if kind == "attention":
                keys, values = ATTENTION[number]
                shapes = {"query": keys, "key": keys, "value": values}
            else:
                shapes = {"now": 2 * self.settings.filters, "before": 2 * self.settings.filters}
            for name, outputs in shapes.items():
                params[f"{kind}.{number}.{name}.weight"] = glorot(generator, outputs, width)
                params[f"{kind}.{number}.{name}.bias"] = torch.zeros(outputs)
        return {**params, **self._head.init(generator)}

    def adapt(self, params: Params, support: Support, steps: int | None = None) -> Adapted:
        """See Learner.adapt; state: activations [T, S, C] of all layers and weights [T, S], real examples first."""
        del steps
        examples = self.example_weights(support)
        features = self.backbone.apply(params, support.x, examples)
        labels = support.y
        if self.spec.task_kind == "classification":
            labels = F.one_hot(labels, self.spec.max_ways)
        x = torch.cat([self._embed(params, features.values), labels.to(features.values.dtype)], -1)
        order = (~support.mask).long().argsort(dim=1, stable=True)
        examples = examples.gather(1, order)
        past = self._run(params, x.gather(1, order.unsqueeze(-1).expand_as(x)), OfSupport(examples))
        statistics = prefixed(STATISTICS, features.statistics)
        return Adapted({PAST: past, EXAMPLES: examples, WAYS: support.ways, **statistics}, None)

    def predict(self, params: Params, state: TaskState, query: Query) -> Tensor:
        """See Learner.predict."""
        features = self.backbone.apply(params, query.x, query.mask, section(state, STATISTICS)).values
        x = F.pad(self._embed(params, features), (0, self._input - EMBEDDING))
        outputs = self._head.apply(params, self._run(params, x, OfQueries(state[PAST], state[EXAMPLES])))
        if self.spec.task_kind == "regression":
            return outputs
        return mask_unused_ways(outputs, state[WAYS], -torch.inf)

    def _embed(self, params: Params, features: Tensor) -> Tensor:
        return linear(features, params["embedding.weight"], params["embedding.bias"])

    def _run(self, params: Params, x: Tensor, context: Context) -> Tensor:
        """All blocks on x [T, N, C]; their outputs are appended to it."""
        for kind, number, _ in self._layers:
            layer = Layer(params, f"{kind}.{number}")
            if kind == "attention":
                new = context.read(x, layer("query", x), layer.key_and_value)
            else:
                content, gate = (layer("now", x) + layer("before", context.before(x, number))).chunk(2, -1)
                new = content.tanh() * gate.sigmoid()
            x = torch.cat([x, new], -1)
        return x

"""Meta Networks."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.heads import mask_unused_ways
from innerloop_learner.layers import glorot, linear
from innerloop_learner.learner import Learner, MethodInfo, methods
from innerloop_learner.losses import UNUSED_LOGIT, log_weights
from innerloop_learner.settings import setting
from innerloop_learner.state import STATISTICS, WAYS, prefixed, section
from innerloop_learner.tasks import Adapted, Params, Query, Support, TaskState
from innerloop_learner.update_rules.coordinates import log_and_sign

KEYS, FAST, EXAMPLES, EMBEDDING = "keys", "fast", "examples", "embedding"
INPUTS = 64
"""Size of the projected features that fast weights apply to."""


@dataclass(frozen=True)
class MetaNetworksSettings:
    """Sizes of slow and fast networks."""

    embedding: int = setting(64, "outputs of the embedding u", least=1)
    hidden: int = setting(20, "units of the networks d and m that turn gradients into fast weights", least=1)


@methods.register("meta-networks")
class MetaNetworks(Learner):
    """Slow weights, and fast ones made of gradients (Munkhdalai and Yu 2017, algorithm 1).

    On projected features e(x), an embedding u and a classifier b have slow weights U, B. Of the support set:

        U* = d(sum_i w_i grad_U L_emb(x_i) / sum_i w_i),   B*_i = m(grad_B L_task(x_i)),   r_i = u(x_i),
        u(x) = relu(U e(x)) + relu(U* e(x))

    and of a query, whose fast weights are looked up in the memory of the B*_i:

        a = softmax_i(s cos(u(x), r_i) + log w_i),   logits = B e(x) + (sum_i a_i B*_i) e(x)

    w are the weights of examples (`Learner.example_weights`). d and m are small networks that all coordinates share, on
    gradients as size and sign (Andrychowicz et al. 2016) and as constants. Only the layers on top of the backbone are
    augmented: fast weights of every convolution and example would take a thousand times the memory for each adaptation.
    d looks at the mean gradient where the paper's is recurrent, so that the order of the support set does not matter.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        name="meta-networks",
        family="memory",
        paper="Munkhdalai, Yu: Meta Networks. ICML 2017",
        gradients_at_serving=True,
        order_matters=False,
        ways_can_change="fewer",
        tasks=("classification",),
    )
    settings_class = MetaNetworksSettings
    settings: MetaNetworksSettings

    def init(self, generator: torch.Generator) -> Params:
        """See Learner.init; L_emb has a slow classifier of its own on u."""
        ways = self.spec.max_ways
        params = {**self.backbone.init(generator), "attention.log_scale": torch.tensor(2.0)}
        shapes = {
            "input": (INPUTS, self.backbone.features),
            "task": (ways, INPUTS),
            "labels": (ways, self.settings.embedding),
        }
        for name, shape in (*shapes.items(), ("embedding", (self.settings.embedding, INPUTS))):
            params[f"slow.{name}.weight"] = glorot(generator, *shape)
            params[f"slow.{name}.bias"] = torch.zeros(shape[0])
        for name in ("d", "m"):
            params[f"fast.{name}.hidden"] = glorot(generator, self.settings.hidden, 2)
            params[f"fast.{name}.bias"] = torch.zeros(self.settings.hidden)
            params[f"fast.{name}.output"] = 0.1 * glorot(generator, 1, self.settings.hidden).squeeze(0)
        return params

    def adapt(self, params: Params, support: Support, steps: int | None = None) -> Adapted:
        """See Learner.adapt; state: U* [T, E, I], keys r [T, S, E], fast weights B* [T, S, W, I], and w [T, S]."""
        del steps
        examples = self.example_weights(support)
        features = self.backbone.apply(params, support.x, examples)
        inputs = self._inputs(params, features.values)  # [T, S, I]
        embedding = self._generate(params, "d", self._embedding_gradient(params, inputs, support, examples))
        errors = self._errors(self._slow(params, "task", inputs), support)  # [T, S, W]
        fast = self._generate(params, "m", errors.unsqueeze(-1) * inputs.unsqueeze(2))
        keys = self._embed(params, embedding, inputs)
        statistics = prefixed(STATISTICS, features.statistics)
        state = {KEYS: keys, FAST: fast, EMBEDDING: embedding, EXAMPLES: examples, WAYS: support.ways}
        return Adapted({**state, **statistics}, None)

    def predict(self, params: Params, state: TaskState, query: Query) -> Tensor:
        """See Learner.predict."""
        features = self.backbone.apply(params, query.x, query.mask, section(state, STATISTICS)).values
        inputs = self._inputs(params, features)
        own, keys = (F.normalize(x, dim=-1) for x in (self._embed(params, state[EMBEDDING], inputs), state[KEYS]))
        similarities = params["attention.log_scale"].exp() * own @ keys.transpose(1, 2)  # [T, Q, S]
        attention = (similarities + log_weights(state[EXAMPLES]).unsqueeze(1)).softmax(-1)
        # B*_i e(x) for every example and query, then the mean: the mean matrices would be far larger.
        answers = (inputs @ state[FAST].flatten(1, 2).transpose(1, 2)).view(*inputs.shape[:2], *state[FAST].shape[1:3])
        logits = self._slow(params, "task", inputs) + (attention.unsqueeze(-1) * answers).sum(2)
        return mask_unused_ways(logits, state[WAYS], -torch.inf)

    def _inputs(self, params: Params, features: Tensor) -> Tensor:
        return F.relu(self._slow(params, "input", features))

    def _slow(self, params: Params, name: str, x: Tensor) -> Tensor:
        return linear(x, params[f"slow.{name}.weight"], params[f"slow.{name}.bias"])

    def _embed(self, params: Params, fast: Tensor, inputs: Tensor) -> Tensor:
        """The embedding u [T, N, E] of projected features [T, N, I], with fast weights U* [T, E, I]."""
        return F.relu(self._slow(params, "embedding", inputs)) + F.relu(inputs @ fast.transpose(1, 2))

    def _errors(self, logits: Tensor, support: Support) -> Tensor:
        """Gradient of each example's cross-entropy with respect to its logits [T, S, W]; zero for padding."""
        probabilities = mask_unused_ways(logits, support.ways, UNUSED_LOGIT).softmax(-1)
        labels = F.one_hot(support.y, logits.shape[-1])
        return (probabilities - labels) * support.mask.unsqueeze(-1)

    def _embedding_gradient(self, params: Params, inputs: Tensor, support: Support, examples: Tensor) -> Tensor:
        """Weighted mean gradient [T, E, I] of the cross-entropy of a classifier on relu(U e(x)), with respect to U."""
        before = self._slow(params, "embedding", inputs)
        errors = self._errors(self._slow(params, "labels", F.relu(before)), support) * examples.unsqueeze(-1)
        backward = (errors @ params["slow.labels.weight"]) * (before > 0)  # [T, S, E]
        total = examples.sum(1).view(-1, 1, 1)
        return backward.transpose(1, 2) @ inputs / (total + (total == 0))

    def _generate(self, params: Params, name: str, gradients: Tensor) -> Tensor:
        """Fast weights of the shape of `gradients` [T, ...]."""
        x = log_and_sign(gradients.detach())
        hidden = F.relu(F.linear(x, params[f"fast.{name}.hidden"], params[f"fast.{name}.bias"]))
        return hidden @ params[f"fast.{name}.output"]

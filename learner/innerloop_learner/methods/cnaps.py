"""A network that writes the weights of another."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.heads import BIAS, WEIGHT, mask_unused_ways
from innerloop_learner.layers import glorot, linear
from innerloop_learner.learner import Learner, MethodInfo, methods
from innerloop_learner.losses import weighted_mean
from innerloop_learner.settings import setting
from innerloop_learner.state import STATISTICS, WAYS, WEIGHTS, prefixed, section
from innerloop_learner.tasks import Adapted, Params, Query, Support, TaskState


@dataclass(frozen=True)
class CNAPsSettings:
    """Sizes of the networks that write weights."""

    embedding: int = setting(64, "size of a task's embedding z", least=1)
    hidden: int = setting(256, "units of the hidden layer that writes the head", least=1)


@methods.register("cnaps")
class CNAPs(Learner):
    """Turns a support set into modulated features and a head (CNAPs, Requeima et al. 2019, section 2).

    With features f of the backbone and f_t of the backbone modulated for task t:

        z_t = weighted mean over the support set of relu(A f(x) + a),
        scale_l <- scale_l (1 + u_l(z_t)),  shift_l <- shift_l + v_l(z_t)     of every norm l,
        c_k = mean of f_t over class k,   w_k = c_k + g(c_k),  b_k = h(c_k),   logits_k(x) = w_k . f_t(x) + b_k

    u, v are linear and start at zero; g, h share a hidden layer. The paper trains modulation on a frozen pre-trained
    extractor; here everything is trained together (start it from one with --init). A backbone without norms is not
    modulated.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        name="cnaps",
        family="weights",
        paper="Requeima, Gordon, Bronskill, Nowozin, Turner: Fast and Flexible Multi-Task Classification Using "
        "Conditional Neural Adaptive Processes. NeurIPS 2019",
        gradients_at_serving=False,
        order_matters=False,
        ways_can_change="any",
        tasks=("classification",),
    )
    settings_class = CNAPsSettings
    settings: CNAPsSettings

    def init(self, generator: torch.Generator) -> Params:
        """See Learner.init."""
        features = self.backbone.features
        params = self.backbone.init(generator)
        shapes = (("embedding", self.settings.embedding, features), ("hidden", self.settings.hidden, features))
        for name, outputs, inputs in (
            *shapes,
            ("weight", features, self.settings.hidden),
            ("bias", 1, self.settings.hidden),
        ):
            params[f"hyper.{name}.weight"] = glorot(generator, outputs, inputs)
            params[f"hyper.{name}.bias"] = torch.zeros(outputs)
        for name in self._modulated(params):
            params[f"hyper.{name}.modulation"] = torch.zeros(params[name].shape[0], self.settings.embedding)
        return params

    def adapt(self, params: Params, support: Support, steps: int | None = None) -> Adapted:
        """See Learner.adapt; state: modulated norms [T, C], head [T, W, F] and [T, W]."""
        del steps
        examples = self.example_weights(support)
        plain = self.backbone.apply(params, support.x, examples).values
        embedded = F.relu(self._layer(params, "embedding", plain))
        task = weighted_mean(embedded, examples)  # [T, E]
        norms = {name: self._modulate(params, name, task) for name in self._modulated(params)}
        features = self.backbone.apply({**params, **norms}, support.x, examples)
        means = support.shares(plain.dtype).transpose(1, 2) @ features.values  # [T, W, F]
        hidden = F.relu(self._layer(params, "hidden", means))
        head = {
            WEIGHT: means + self._layer(params, "weight", hidden),
            BIAS: self._layer(params, "bias", hidden)[..., 0],
        }
        weights = {WEIGHTS + name: value for name, value in {**norms, **head}.items()}
        statistics = prefixed(STATISTICS, features.statistics)
        return Adapted({**weights, **statistics, WAYS: support.ways}, None)

    def predict(self, params: Params, state: TaskState, query: Query) -> Tensor:
        """See Learner.predict."""
        merged = {**params, **section(state, WEIGHTS)}
        features = self.backbone.apply(merged, query.x, query.mask, section(state, STATISTICS)).values
        return mask_unused_ways(linear(features, merged[WEIGHT], merged[BIAS]), state[WAYS], -torch.inf)

    def _modulated(self, params: Params) -> list[str]:
        """Names of the norms' scales and shifts."""
        names = [f"{norm.name}.{part}" for norm in self.backbone.norms for part in ("weight", "bias")]
        return [name for name in names if name in params]

    def _modulate(self, params: Params, name: str, task: Tensor) -> Tensor:
        """A scale or shift of each task [T, C], from embeddings [T, E]."""
        change = task @ params[f"hyper.{name}.modulation"].T
        return params[name] * (1 + change) if name.endswith("weight") else params[name] + change

    def _layer(self, params: Params, name: str, x: Tensor) -> Tensor:
        return linear(x, params[f"hyper.{name}.weight"], params[f"hyper.{name}.bias"])

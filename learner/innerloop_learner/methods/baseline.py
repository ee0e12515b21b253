"""Pre-train, then fine-tune a new head."""

from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner import heads
from innerloop_learner.heads import mask_unused_ways
from innerloop_learner.inner_loop import inner_loop
from innerloop_learner.layers import glorot, linear
from innerloop_learner.learner import MethodInfo, TaskError, TrainingDefaults, methods
from innerloop_learner.loops import Index
from innerloop_learner.losses import UNUSED_LOGIT
from innerloop_learner.pretraining import BIAS, WEIGHT, Pretrained
from innerloop_learner.state import STATISTICS, WAYS, WEIGHTS, prefixed, section
from innerloop_learner.tasks import Adapted, Params, Query, Support, TaskState
from innerloop_learner.update_rules import update_rules


@methods.register("baseline")
class Baseline(Pretrained):
    """Ordinary transfer: features of a classifier of all training classes, and a new linear head for every task.

    Chen, Liu, Kira, Wang and Huang 2019, section 3.2. The features stay as they are; with fresh head weights h_0:

        h_{k+1} = h_k - a * grad_h L_S(h_k),   logits(x) = h f(x)

    Settings (`spec.settings`):
        steps: inner steps at serving unless a request names another number.
        max_steps: most steps a request may ask for.
        rate: a.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        name="baseline",
        family="baseline",
        paper="Chen, Liu, Kira, Wang, Huang: A Closer Look at Few-shot Classification. ICLR 2019",
        gradients_at_serving=True,
        order_matters=False,
        ways_can_change="any",
        tasks=("classification",),
        training=TrainingDefaults(ways=60, queries=2, meta_batch=1, iterations=10000, norm="batch"),
    )

    def _configure(self, steps: int = 100, max_steps: int = 200, rate: float = 0.1) -> None:
        self._take_steps(steps, max_steps)
        self._rule = update_rules["sgd"](rate=rate)

    def init(self, generator: torch.Generator) -> Params:
        """See Learner.init; the head is where fine-tuning begins, and is not learned."""
        shape = (self.spec.max_ways, self.backbone.features)
        head = {heads.WEIGHT: glorot(generator, *shape), heads.BIAS: torch.zeros(shape[0])}
        return {**super().init(generator), **head}

    def adapt(self, params: Params, support: Support, steps: int | None = None) -> Adapted:
        """See Learner.adapt."""
        if support.max_ways > self.spec.max_ways:
            raise TaskError(f"this {self.info.name} model takes at most {self.spec.max_ways} ways")
        features = self.backbone.apply(params, support.x, support.mask)

        def loss(step: Index, head: Params) -> Tensor:
            del step
            logits = self._logits(head, features.values)
            return self.loss(mask_unused_ways(logits, support.ways, UNUSED_LOGIT), support.y, support.mask)

        initial = {name: params[name][: support.max_ways] for name in (heads.WEIGHT, heads.BIAS)}
        steps = self._steps if steps is None else steps
        weights, losses = inner_loop(loss, initial, self._rule, params, steps, support.tasks, order=1)
        state = {WEIGHTS + name: weight for name, weight in weights.items()}
        statistics = prefixed(STATISTICS, features.statistics)
        return Adapted({**state, **statistics, WAYS: support.ways}, losses)

    def predict(self, params: Params, state: TaskState, query: Query) -> Tensor:
        """See Learner.predict."""
        features = self.backbone.apply(params, query.x, query.mask, section(state, STATISTICS)).values
        return mask_unused_ways(self._logits(section(state, WEIGHTS), features), state[WAYS], -torch.inf)

    def _logits(self, head: Params, features: Tensor) -> Tensor:
        return linear(features, head[heads.WEIGHT], head[heads.BIAS])


@methods.register("baseline++")
class BaselinePlusPlus(Baseline):
    """Baseline with cosine similarities in place of inner products, in training and fine-tuning (ibid., section 3.3).

        logits_k(x) = s * cos(h_k, f(x)) + b_k

    The shift b, which the paper's has not, starts at zero.

    Settings are those of Baseline, and `scale`: s.
    """

    info = replace(Baseline.info, name="baseline++")

    def _configure(self, steps: int = 100, max_steps: int = 200, rate: float = 0.1, scale: float = 10.0) -> None:
        super()._configure(steps, max_steps, rate)
        if not 0 < scale < float("inf"):
            raise ValueError(f"scale must be positive, not {scale}")
        self._scale = scale

    def _logits(self, head: Params, features: Tensor) -> Tensor:
        return self._cosines(features, head[heads.WEIGHT], head[heads.BIAS])

    def _all_logits(self, params: Params, features: Tensor) -> Tensor:
        return self._cosines(features, params[WEIGHT], params[BIAS])

    def _cosines(self, features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return linear(self._scale * F.normalize(features, dim=-1), F.normalize(weight, dim=-1), bias)

"""Pre-train, then fine-tune a new head."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from innerloop_learner import heads
from innerloop_learner.heads import cosine_logits, mask_unused_ways
from innerloop_learner.inner_loop import inner_loop
from innerloop_learner.layers import glorot, linear
from innerloop_learner.learner import Learner, MethodInfo, TaskError, methods
from innerloop_learner.loops import Index
from innerloop_learner.losses import UNUSED_LOGIT, classification_loss
from innerloop_learner.settings import StepSettings, setting
from innerloop_learner.state import STATISTICS, WAYS, WEIGHTS, prefixed, section
from innerloop_learner.tasks import Adapted, Params, Query, Support, TaskState
from innerloop_learner.update_rules import update_rules


@dataclass(frozen=True)
class BaselineSettings(StepSettings):
    """Settings of the fine-tuning of a new head."""

    steps: int = 100
    max_steps: int = 200
    rate: float = setting(0.1, "learning rate of the head")


@methods.register("baseline")
class Baseline(Learner):
    """Ordinary transfer: learned features, a new linear head (Chen et al. 2019, section 3.2).

    The features are those of a classifier of all training classes, and stay as they are; from a head h_0:

        h_{k+1} = h_k - a * grad_h L_S(h_k),   logits(x) = h f(x)
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        name="baseline",
        family="baseline",
        paper="Chen, Liu, Kira, Wang, Huang: A Closer Look at Few-shot Classification. ICLR 2019",
        gradients_at_serving=True,
        order_matters=False,
        ways_can_change="any",
        tasks=("classification",),
        objective="all_classes",
    )
    settings_class = BaselineSettings
    settings: BaselineSettings
    embeds_alone = True

    def _configure(self) -> None:
        self._rule = update_rules["sgd"](rate=self.settings.rate)

    def init(self, generator: torch.Generator) -> Params:
        """See Learner.init; the head is where fine-tuning begins, and is not learned."""
        shape = (self.spec.max_ways, self.backbone.features)
        head = {heads.WEIGHT: glorot(generator, *shape), heads.BIAS: torch.zeros(shape[0])}
        return {**self.backbone.init(generator), **head}

    def adapt(self, params: Params, support: Support, steps: int | None = None) -> Adapted:
        """See Learner.adapt."""
        if support.max_ways > self.spec.max_ways:
            raise TaskError(f"this {self.info.name} model takes at most {self.spec.max_ways} ways")
        examples = self.example_weights(support)
        features = self.backbone.apply(params, support.x, examples)

        def loss(step: Index, head: Params, twice: bool) -> Tensor:
            del step, twice
            logits = self._logits(head, features.values)
            return classification_loss(mask_unused_ways(logits, support.ways, UNUSED_LOGIT), support.y, examples)

        initial = {name: params[name][: support.max_ways] for name in (heads.WEIGHT, heads.BIAS)}
        steps = self.default_steps if steps is None else steps
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


@dataclass(frozen=True)
class BaselinePlusPlusSettings(BaselineSettings):
    """Settings of Baseline, and the scale of similarities."""

    scale: float = setting(10.0, "factor that takes cosine similarities to logits")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.scale < float("inf"):
            raise ValueError(f"scale must be positive, not {self.scale}")


@methods.register("baseline++")
class BaselinePlusPlus(Baseline):
    """Baseline by cosine similarities, not inner products (Chen et al. 2019, section 3.3).

    Training and fine-tuning both take

        logits_k(x) = s * cos(h_k, f(x)) + b_k

    The shift b, which the paper's has not, starts at zero.
    """

    info = replace(Baseline.info, name="baseline++", objective="all_classes_by_cosine")
    settings_class = BaselinePlusPlusSettings
    settings: BaselinePlusPlusSettings

    def _logits(self, head: Params, features: Tensor) -> Tensor:
        return cosine_logits(self.settings.scale, features, head[heads.WEIGHT], head[heads.BIAS])

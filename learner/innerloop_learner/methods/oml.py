"""Online-aware meta-learning."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.backbones.backbone import Features
from innerloop_learner.heads import mask_unused_ways
from innerloop_learner.importances import importances
from innerloop_learner.learner import Learner, MethodInfo, methods
from innerloop_learner.norms import Statistics
from innerloop_learner.online_head import OnlineHead
from innerloop_learner.settings import SettingsError, setting
from innerloop_learner.spec import LearnerSpec
from innerloop_learner.state import STATISTICS, WAYS, prefixed, section
from innerloop_learner.tasks import Adapted, Params, Query, Support, TaskState


@dataclass(frozen=True)
class OMLSettings:
    """Settings of the head that learns online."""

    rate: float = setting(0.01, "step size before training, which learns it", least=1e-6, most=10.0)
    scale: float = setting(300.0, "factor of answers before training, which learns it", least=1e-3, most=1e4)
    normalise: bool = setting(True, "divide the features of an example by their length")
    outputs: int = setting(
        1000, "outputs of the head while it learns; the most classes that it can tell apart", least=2
    )
    importance: str = setting("none", "registered name of what protects weights that earlier examples rely on")


@methods.register("oml")
class OML(Learner):
    """Features by which a head learns classes one by one (Javed and White 2019, OML).

    With features f, learned offline and fixed since, each example (x_t, y_t) of the support set is one step of SGD on a
    linear head W, in the order in which examples come:

        W_{t+1} = W_t - a * grad_W cross-entropy(W_t f(x_t), y_t),   logits(x) = s W_S f(x)

    Meta-training (objective `lifelong`) lowers what such steps do to other classes. The head has a thousand outputs, as
    in the paper, and is linear, as in its authors' later code. Here all rows begin with the same, learned row, the rate
    a and the factor s are learned too, and features are divided by their length: a head that small steps add up from
    the examples of each class would otherwise answer with the class of the longest sum. An `importance` of weights,
    where it is set, holds what earlier examples of a class relied on.

    An example counts when it comes, whatever follows. So classes are not balanced: one that comes more often is learned
    more. Extending goes on with the sequence, and old examples are not needed.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        name="oml",
        family="life-long",
        paper="Javed, White: Meta-Learning Representations for Continual Learning. NeurIPS 2019",
        gradients_at_serving=False,
        order_matters=True,
        ways_can_change="any",
        tasks=("classification",),
        objective="lifelong",
        extends=True,
    )
    settings_class = OMLSettings
    settings: OMLSettings
    embeds_alone = True

    def __init__(self, spec: LearnerSpec) -> None:
        super().__init__(spec)
        if spec.max_ways > self.settings.outputs:
            raise SettingsError(
                f"{self.info.name} needs an output for each of {spec.max_ways} classes; raise outputs or lower max_ways"
            )
        importance = importances[self.settings.importance]()
        numbers = (self.settings.outputs, self.settings.rate, self.settings.scale)
        self.head = OnlineHead(self.backbone.features, *numbers, importance)

    def init(self, generator: torch.Generator) -> Params:
        """See Learner.init."""
        return {**self.backbone.init(generator), **self.head.init()}

    def adapt(self, params: Params, support: Support, steps: int | None = None) -> Adapted:
        """See Learner.adapt; state: that of the head, see `OnlineHead.resumed`."""
        del steps
        features = self.embed(params, support.x, self.example_weights(support))
        start = self.head.start(params, support.tasks, support.max_ways)
        learned = self.head.learn(params, start, features.values, support)
        return Adapted({**learned, WAYS: support.ways, **prefixed(STATISTICS, features.statistics)}, None)

    def predict(self, params: Params, state: TaskState, query: Query) -> Tensor:
        """See Learner.predict."""
        features = self.embed(params, query.x, query.mask, section(state, STATISTICS)).values
        return mask_unused_ways(self.head.outputs(params, state, features), state[WAYS], -torch.inf)

    def embed(self, params: Params, x: Tensor, weights: Tensor, statistics: Statistics | None = None) -> Features:
        """The features that the head sees; arguments as `Backbone.apply` takes them."""
        features = self.backbone.apply(params, x, weights, statistics)
        if not self.settings.normalise:
            return features
        return features._replace(values=F.normalize(features.values, dim=-1))

    def _extend(self, params: Params, state: TaskState, support: Support, steps: int | None) -> Adapted:
        """See Learner.extend: the sequence goes on."""
        del steps
        features = self.embed(params, support.x, self.example_weights(support)).values
        wide = self.head.widened(state, support.max_ways)
        return Adapted({**self.head.learn(params, wide, features, support), WAYS: support.ways}, None)

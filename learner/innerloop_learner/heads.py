"""The last layer: features to logits or values."""

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.layers import glorot, linear
from innerloop_learner.losses import unused_ways
from innerloop_learner.spec import LearnerSpec
from innerloop_learner.tasks import Params

WEIGHT = "head.weight"
BIAS = "head.bias"


class LinearHead:
    """Affine map from features to one output per class or target value.

    Args:
        features: number of features F.
        outputs: number of outputs O: most classes of a task, or target values of an example.
    """

    def __init__(self, features: int, outputs: int) -> None:
        self._shape = (outputs, features)

    @classmethod
    def for_spec(cls, spec: LearnerSpec, features: int) -> "LinearHead":
        """The head that a spec's tasks need."""
        return cls(features, spec.max_ways if spec.task_kind == "classification" else spec.target_size)

    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters."""
        return {WEIGHT: glorot(generator, *self._shape), BIAS: torch.zeros(self._shape[0])}

    def apply(self, params: Params, features: Tensor) -> Tensor:
        """Outputs [T, N, O] of features [T, N, F]; weights shared or one per task."""
        return linear(features, params[WEIGHT], params[BIAS])


def cosine_logits(scale: float, features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Logits s cos(w_k, f) + b_k, [T, N, O]; features [T, N, F], weights [O, F] shared, or [T, O, F] one per task."""
    return linear(scale * F.normalize(features, dim=-1), F.normalize(weight, dim=-1), bias)


def mask_unused_ways(logits: Tensor, ways: Tensor, value: float) -> Tensor:
    """Logits [T, N, W] with the columns past each task's ways [T] set to `value`."""
    return logits.masked_fill(unused_ways(ways, logits.shape[-1]), value)

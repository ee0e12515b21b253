"""Features that were computed before."""

import torch
from torch import Tensor

from innerloop_learner.backbones.backbone import Backbone, Normalise
from innerloop_learner.tasks import Params


class Given(Backbone):
    """Takes the features of another backbone in the place of inputs, and gives them as they are.

    It is not registered: no bundle has it, but `Learner.on_features` does.

    Args:
        other: the backbone that computes the features.
    """

    def __init__(self, other: Backbone) -> None:
        super().__init__(other.feature_shape, None)
        self.features, self.norms = other.features, []
        self._shape = other.feature_shape

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """See Backbone.feature_shape."""
        return self._shape

    def init(self, generator: torch.Generator) -> Params:
        """See Backbone.init; there are none."""
        del generator
        return {}

    def _layers(self, params: Params, x: Tensor, normalise: Normalise) -> Tensor:
        del params, normalise
        return x

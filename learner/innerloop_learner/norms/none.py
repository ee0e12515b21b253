"""No normalisation."""

from torch import Tensor

from innerloop_learner.norms.norm import Norm, Statistics, norms
from innerloop_learner.tasks import Params


@norms.register("none")
class NoNorm(Norm):
    """No normalisation."""

    def init(self) -> Params:
        """No parameters."""
        return {}

    def apply(self, params: Params, x: Tensor, weights: Tensor, statistics: Statistics) -> tuple[Tensor, Params]:
        """See Norm.apply."""
        del params, weights, statistics
        return x, {}

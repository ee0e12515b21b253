"""No weighting: all examples of a class count the same."""

from collections.abc import Callable

from torch import Tensor

from innerloop_learner.tasks import Params, Support
from innerloop_learner.weightings.weighting import Weighting, weightings


@weightings.register("none")
class NoWeighting(Weighting):
    """Trusts every label."""

    def weigh(self, params: Params, support: Support, features: Callable[[], Tensor]) -> Tensor | None:
        """See Weighting.weigh."""
        del params, support, features
        return None

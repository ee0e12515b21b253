"""Importance by squared gradients."""

from torch import Tensor

from innerloop_learner.importances.importance import Importance, OnlineStep, importances


@importances.register("ewc")
class EWC(Importance):
    """Holds what has large gradients (Kirkpatrick et al. 2017, EWC).

    An example relies on a weight by the square of its loss's gradient: the diagonal of the Fisher information.
    """

    first_strength = 1.0

    def relied(self, step: OnlineStep) -> Tensor:
        """See Importance.relied."""
        return step.gradients.square()

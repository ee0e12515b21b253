"""Importance by what outputs depend on."""

from torch import Tensor

from innerloop_learner.importances.importance import Importance, OnlineStep, importances


@importances.register("mas")
class MAS(Importance):
    """Holds what outputs depend on (memory aware synapses, Aljundi et al. 2018).

    An example relies on a weight w by |d(|z|^2 / 2) / dw|, with outputs z. It needs no labels: what the head answers
    strongly is what it should keep answering.
    """

    first_strength = 100.0  # outputs are small where rates are

    def relied(self, step: OnlineStep) -> Tensor:
        """See Importance.relied."""
        return (step.outputs.unsqueeze(2) * step.x.unsqueeze(1)).abs()

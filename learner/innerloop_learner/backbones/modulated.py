"""A backbone whose features another one gates."""

from collections.abc import Callable

import torch
from torch import Tensor

from innerloop_learner.backbones.backbone import Backbone, Disturbance, Normalise
from innerloop_learner.layers import glorot, linear
from innerloop_learner.state import section
from innerloop_learner.tasks import Params

MODULATOR = "modulator."
GATE_WEIGHT, GATE_BIAS = "gate.weight", "gate.bias"


class Modulated(Backbone):
    """Features h(x) that are gated, example by example: sigmoid(G g(x) + c) * h(x).

    Both networks see the example. What a gate closes, gradients do not pass through: it also says what an example may
    change in layers behind.

    Args:
        body: gives the features h.
        modulator: gives g; its parameters get a prefix. It must not be used elsewhere.
    """

    def __init__(self, body: Backbone, modulator: Backbone) -> None:
        self.settings, self.features = body.settings, body.features
        self._body, self._modulator = body, modulator
        for norm in modulator.norms:
            norm.name = MODULATOR + norm.name
        self.norms = [*body.norms, *modulator.norms]

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """See Backbone.feature_shape."""
        return self._body.feature_shape

    def init(self, generator: torch.Generator) -> Params:
        """See Backbone.init; gates are half open at first."""
        body, own = self._body.init(generator), self._modulator.init(generator)
        gate = {
            GATE_WEIGHT: glorot(generator, self.features, self._modulator.features),
            GATE_BIAS: torch.zeros(self.features),
        }
        # Those of its norms have the prefix already.
        modulator = {MODULATOR + name.removeprefix(MODULATOR): value for name, value in own.items()}
        return {**body, **modulator, **gate}

    def disturbed(self, params: Params, chosen: Callable[[], Disturbance]) -> Params:
        """See Backbone.disturbed; gates stay as they are."""
        return self._body.disturbed(params, chosen)

    def _layers(self, params: Params, x: Tensor, normalise: Normalise) -> Tensor:
        gates = self._modulator._layers(section(params, MODULATOR), x, normalise)
        open_by = linear(gates, params[GATE_WEIGHT], params[GATE_BIAS]).sigmoid()
        return open_by * self._body._layers(params, x, normalise)

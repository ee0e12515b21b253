"""Multi-layer perceptron."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.backbones.backbone import Backbone, Normalise, backbones
from innerloop_learner.layers import glorot, linear
from innerloop_learner.norms import norms
from innerloop_learner.tasks import Params

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}


@backbones.register("mlp")
class MLP(Backbone):
    """Linear layers, each followed by norm and activation, on flattened inputs.

    Args:
        input_shape: of one example, any.
        widths: outputs of each layer; the default is MAML's sinusoid network.
        norm: registered name of the norm.
        activation: after each norm.

    Raises:
        ValueError: a layer without outputs.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        widths: Sequence[int] = (40, 40),
        norm: str = "none",
        activation: Literal["relu", "tanh", "sigmoid"] = "relu",
    ) -> None:
        if any(width < 1 for width in widths):
            raise ValueError(f"widths must be at least 1, not {list(widths)}")
        size = torch.Size(input_shape).numel()
        self._sizes = (size, *widths)
        self.features = self._sizes[-1]
        self._activation = ACTIVATIONS[activation]
        self.norms = [norms[norm](f"norm{layer}", width) for layer, width in enumerate(widths)]

    def init(self, generator: torch.Generator) -> Params:
        """See Backbone.init."""
        params: Params = {}
        for layer, norm in enumerate(self.norms):
            inputs, outputs = self._sizes[layer : layer + 2]
            params[f"linear{layer}.weight"] = glorot(generator, outputs, inputs)
            params[f"linear{layer}.bias"] = torch.zeros(outputs)
            params.update(norm.init())
        return params

    def _layers(self, params: Params, x: Tensor, normalise: Normalise) -> Tensor:
        x = x.flatten(2)
        for layer, norm in enumerate(self.norms):
            x = linear(x, params[f"linear{layer}.weight"], params[f"linear{layer}.bias"])
            x = self._activation(normalise(norm, x))
        return x

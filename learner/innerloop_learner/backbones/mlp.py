"""Multi-layer perceptron."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.backbones.backbone import Backbone, Normalise, backbones
from innerloop_learner.layers import glorot, linear
from innerloop_learner.norms import norms
from innerloop_learner.tasks import Params


@backbones.register("mlp")
class MLP(Backbone):
    """Linear layers, each followed by norm and ReLU, on flattened inputs.

    Args:
        input_shape: of one example, any.
        widths: outputs of each layer; the default is MAML's sinusoid network.
        norm: registered name of the norm.

    Raises:
        ValueError: a layer without outputs.
    """

    def __init__(self, input_shape: tuple[int, ...], widths: Sequence[int] = (40, 40), norm: str = "none") -> None:
        if any(width < 1 for width in widths):
            raise ValueError(f"widths must be at least 1, not {list(widths)}")
        size = torch.Size(input_shape).numel()
        self._sizes = (size, *widths)
        self.features = self._sizes[-1]
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
            x = F.relu(normalise(norm, linear(x, params[f"linear{layer}.weight"], params[f"linear{layer}.bias"])))
        return x

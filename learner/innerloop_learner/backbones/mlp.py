"""Multi-layer perceptron."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.backbones.backbone import Backbone, Normalise, backbones
from innerloop_learner.layers import glorot, linear
from innerloop_learner.noises import noises
from innerloop_learner.norms import norms
from innerloop_learner.settings import setting
from innerloop_learner.tasks import Params

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}


@dataclass(frozen=True)
class MLPSettings:
    """Settings of the multi-layer perceptron."""

    widths: Sequence[int] = setting((40, 40), "outputs of each layer; the default is MAML's sinusoid network")
    norm: str = setting("none", "registered name of the norm between layers")
    activation: Literal["relu", "tanh", "sigmoid"] = setting("relu", "activation after each norm")
    noise: str = setting("none", "registered name of the noise on every layer's outputs while adapting")
    noise_samples: int = setting(1, "samples of the noise per inner step at serving; training takes one", least=1)

    def __post_init__(self) -> None:
        if any(width < 1 for width in self.widths):
            raise ValueError(f"widths must be at least 1, not {list(self.widths)}")


@backbones.register("mlp")
class MLP(Backbone):
    """Linear layers with norm and activation, for any inputs.

    Inputs are flattened.
    """

    settings_class = MLPSettings
    settings: MLPSettings

    def __init__(self, input_shape: tuple[int, ...], settings: MLPSettings) -> None:
        super().__init__(input_shape, settings)
        self._sizes = (torch.Size(input_shape).numel(), *settings.widths)
        self.features = self._sizes[-1]
        self.depth = len(settings.widths)
        self._activation = ACTIVATIONS[settings.activation]
        norm = norms[settings.norm]
        self.norms = [norm(f"norm{layer}", width) for layer, width in enumerate(settings.widths)]
        self.noise = noises[settings.noise](settings.noise_samples)

    def init(self, generator: torch.Generator) -> Params:
        """See Backbone.init."""
        params: Params = {}
        for layer, norm in enumerate(self.norms):
            inputs, outputs = self._sizes[layer : layer + 2]
            params[f"linear{layer}.weight"] = glorot(generator, outputs, inputs)
            params[f"linear{layer}.bias"] = torch.zeros(outputs)
            params.update(norm.init())
        layers = {name: value for name, value in params.items() if name.startswith("linear")}
        return {**params, **self.noise.init(layers, generator)}

    def _layers(self, params: Params, x: Tensor, normalise: Normalise) -> Tensor:
        x = x.flatten(2)
        for number in self.span:
            layer, affine = f"linear{number}", partial(linear, x)
            y = affine(params[f"{layer}.weight"], params[f"{layer}.bias"])
            y = self.noise.apply(params, layer, y, affine, normalise.noise_keys)
            x = self._activation(normalise(self.norms[number], y))
        return x

"""Conv4, the backbone of the few-shot papers."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.backbones.backbone import Backbone, Normalise, backbones
from innerloop_learner.layers import KERNEL, conv2d, glorot, max_pool2d
from innerloop_learner.norms import norms
from innerloop_learner.tasks import Params


@backbones.register("conv4")
class Conv4(Backbone):
    """Four blocks of 3x3 convolution, norm and ReLU, each halving the image.

    Args:
        input_shape: (channels, height, width).
        width: channels of every block.
        downsample: "max_pool" after the ReLU (Vinyals et al. 2016) or "stride" in the convolution (MAML's Omniglot
            network; about a quarter of the arithmetic).
        norm: registered name of the norm.

    Raises:
        ValueError: the input is not an image, or too small to halve four times, or there are no channels.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        width: int = 64,
        downsample: Literal["max_pool", "stride"] = "max_pool",
        norm: str = "task",
    ) -> None:
        if len(input_shape) != 3:
            raise ValueError(f"conv4 takes images (channels, height, width), not inputs of shape {input_shape}")
        if width < 1:
            raise ValueError(f"width must be at least 1, not {width}")
        self._channels = (input_shape[0], width, width, width, width)
        self._pool = downsample == "max_pool"
        height, breadth = input_shape[1:]
        for _ in range(4):
            height, breadth = (height // 2, breadth // 2) if self._pool else ((height + 1) // 2, (breadth + 1) // 2)
        if height * breadth == 0:
            raise ValueError(f"images of {input_shape[1]}x{input_shape[2]} are too small to halve four times")
        self.features = width * height * breadth
        self._maps = (width, height, breadth)
        self.norms = [norms[norm](f"norm{block}", width) for block in range(4)]

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """See Backbone.feature_shape."""
        return self._maps

    def init(self, generator: torch.Generator) -> Params:
        """See Backbone.init."""
        params: Params = {}
        for block, norm in enumerate(self.norms):
            inputs, outputs = self._channels[block : block + 2]
            params[f"conv{block}.weight"] = glorot(generator, outputs, inputs, KERNEL, KERNEL)
            params[f"conv{block}.bias"] = torch.zeros(outputs)
            params.update(norm.init())
        return params

    def _layers(self, params: Params, x: Tensor, normalise: Normalise) -> Tensor:
        for block, norm in enumerate(self.norms):
            weight, bias = params[f"conv{block}.weight"], params[f"conv{block}.bias"]
            x = conv2d(x, weight, bias, stride=1 if self._pool else 2)
            x = F.relu(normalise(norm, x))
            if self._pool:
                x = max_pool2d(x)
        return x.flatten(2)

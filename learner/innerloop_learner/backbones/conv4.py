"""Conv4, the backbone of the few-shot papers."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.backbones.backbone import Backbone, Normalise, backbones, check_images
from innerloop_learner.layers import KERNEL, TaskConvolution, conv2d, glorot, max_pool2d
from innerloop_learner.noises import noises
from innerloop_learner.norms import Norm, norms
from innerloop_learner.settings import setting
from innerloop_learner.tasks import Params

BLOCKS = 4
"""Number of blocks."""


@dataclass(frozen=True)
class Conv4Settings:
    """Settings of Conv4."""

    width: int = setting(64, "channels of every block", least=1)
    downsample: Literal["max_pool", "stride"] = setting(
        "max_pool", "how blocks halve images; stride, in the convolution, takes about a quarter of the arithmetic"
    )
    norm: str = setting("task", "registered name of the norm in every block")
    noise: str = setting("none", "registered name of the noise on every block's outputs while adapting")
    noise_samples: int = setting(1, "samples of the noise per inner step at serving; training takes one", least=1)


@backbones.register("conv4")
class Conv4(Backbone):
    """Four blocks of convolutions, each halving the image (Vinyals et al. 2016).

    Each block is a 3x3 convolution, a norm and a ReLU, on images of (channels, height, width).

    Max-pooling (Vinyals et al. 2016) stands before the ReLU, which comes to the same with less to do. Strides are those
    of MAML's Omniglot network (Finn et al. 2017).

    Attributes:
        task_convolution: how tasks with weights of their own share a convolution, see `layers.conv2d`.

    Raises:
        ValueError: the input is not an image, or too small to halve four times.
    """

    settings_class = Conv4Settings
    settings: Conv4Settings
    task_convolution: TaskConvolution | None = None
    depth = BLOCKS

    def __init__(self, input_shape: tuple[int, ...], settings: Conv4Settings) -> None:
        super().__init__(input_shape, settings)
        check_images("conv4", input_shape)
        width = settings.width
        self._channels = (input_shape[0], width, width, width, width)
        self._pool = settings.downsample == "max_pool"
        self._stride = 1 if self._pool else 2
        height, breadth = input_shape[1:]
        for _ in range(4):
            height, breadth = (height // 2, breadth // 2) if self._pool else ((height + 1) // 2, (breadth + 1) // 2)
        if height * breadth == 0:
            raise ValueError(f"images of {input_shape[1]}x{input_shape[2]} are too small to halve four times")
        self.features = width * height * breadth
        self._maps = (width, height, breadth)
        self.norms = [norms[settings.norm](f"norm{block}", width) for block in range(4)]
        self.noise = noises[settings.noise](settings.noise_samples)

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
        layers = {name: value for name, value in params.items() if name.startswith("conv")}
        return {**params, **self.noise.init(layers, generator)}

    def _layers(self, params: Params, x: Tensor, normalise: Normalise) -> Tensor:
        for block in self.span:
            x = self._convolved(params, block, self.norms[block], x, normalise)
            if self._pool:
                x = max_pool2d(x)
            x = F.relu(x)
        if not self.ends:
            return x
        return x.flatten(2).to(params["conv0.weight"].dtype)  # convolutions may leave another one in low precision

    def _convolved(self, params: Params, block: int, norm: Norm, x: Tensor, normalise: Normalise) -> Tensor:
        """Convolution, noise and norm of one block, of x [T, N, C, H, W]."""

        def convolve(weight: Tensor, bias: Tensor) -> Tensor:
            return conv2d(x, weight, bias, self._stride, self.task_convolution)

        layer = f"conv{block}"
        y = convolve(params[f"{layer}.weight"], params[f"{layer}.bias"])
        return normalise(norm, self.noise.apply(params, layer, y, convolve, normalise.noise_keys))

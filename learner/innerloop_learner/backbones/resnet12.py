"""ResNet-12, the residual network of the few-shot papers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.backbones.backbone import Backbone, Disturbance, Normalise, backbones, check_images
from innerloop_learner.backbones.drop_block import drop_block, drop_keys, dropping
from innerloop_learner.backbones.residual import NormedConvolution, check_widths, means_of_maps
from innerloop_learner.layers import KERNEL, max_pool2d
from innerloop_learner.settings import setting
from innerloop_learner.tasks import Params

SLOPE = 0.1
"""Slope of the activation below zero."""

CONVOLUTIONS = 3
"""3x3 convolutions of a block."""


@dataclass(frozen=True)
class ResNet12Settings:
    """Settings of ResNet-12."""

    widths: Sequence[int] = setting((64, 160, 320, 640), "channels of the four blocks")
    norm: str = setting("task", "registered name of the norm behind every convolution")
    drop: float = setting(
        0.1, "share of the maps of the last two blocks that is dropped in training at its end", least=0, most=0.9
    )
    drop_size: int = setting(5, "height and width of what is dropped, in places of a map", least=1)

    def __post_init__(self) -> None:
        check_widths(self.widths)


@backbones.register("resnet12")
class ResNet12(Backbone):
    """Four residual blocks, each halving the image (Lee et al. 2019, section 4.1).

    With 3x3 convolutions c_1, c_2, c_3 and a 1x1 convolution r, each with a norm behind it, a block is

        x -> max_pool(a(c_3(a(c_2(a(c_1(x))))) + r(x))),   a(z) = max(z, z / 10)

    and features are the means of the last maps. While training asks queries, squares of the last two blocks' maps are
    dropped (DropBlock, Ghiasi, Lin and Le 2018), more and more of them in its course; when adapting and serving none
    is. Lee et al. also drop single places of the first two blocks' maps, which is left out.

    Raises:
        ValueError: the input is not an image, or too small to halve four times.
    """

    settings_class = ResNet12Settings
    settings: ResNet12Settings

    def __init__(self, input_shape: tuple[int, ...], settings: ResNet12Settings) -> None:
        super().__init__(input_shape, settings)
        check_images("resnet12", input_shape)
        if min(input_shape[1:]) < 16:
            raise ValueError(f"images of {input_shape[1]}x{input_shape[2]} are too small to halve four times")
        channels = (input_shape[0], *settings.widths)
        self.depth = len(settings.widths)
        self._blocks = [
            _Block(f"block{number}", inputs, outputs, settings.norm)
            for number, (inputs, outputs) in enumerate(pairwise(channels))
        ]
        self.norms = [part.norm for block in self._blocks for part in block.parts]
        self.features = settings.widths[-1]

    def init(self, generator: torch.Generator) -> Params:
        """See Backbone.init."""
        parts = (part.init(generator) for block in self._blocks for part in block.parts)
        return {name: value for part in parts for name, value in part.items()}

    def disturbed(self, params: Params, chosen: Callable[[], Disturbance]) -> Params:
        """See Backbone.disturbed; the share that is dropped grows in the course of training."""
        if not self.settings.drop:
            return params
        seed, progress = chosen()
        return dropping(params, seed, self.settings.drop * progress)

    def _layers(self, params: Params, x: Tensor, normalise: Normalise) -> Tensor:
        keys = drop_keys(params, x)
        for number in self.span:
            x = max_pool2d(self._blocks[number].apply(params, x, normalise))
            if keys is not None and number >= 2:
                x = drop_block(params, x, keys, f"block{number}", self.settings.drop_size)
        return means_of_maps(x, params["block0.conv0.weight"]) if self.ends else x


class _Block:
    """A residual block without its max-pooling.

    Args:
        name: prefix of the names of its parameters.
        inputs, outputs: channels.
        norm: registered name of the norms.

    Attributes:
        parts: its convolutions with their norms, the shortcut's last.
    """

    def __init__(self, name: str, inputs: int, outputs: int, norm: str) -> None:
        channels = (inputs, *[outputs] * CONVOLUTIONS)
        self._convolutions = [
            NormedConvolution(f"{name}.conv{place}", one, other, KERNEL, norm)
            for place, (one, other) in enumerate(pairwise(channels))
        ]
        self._shortcut = NormedConvolution(f"{name}.shortcut", inputs, outputs, 1, norm)
        self.parts = [*self._convolutions, self._shortcut]

    def apply(self, params: Params, x: Tensor, normalise: Normalise) -> Tensor:
        """The maps [T, N, O, H, W] of x [T, N, I, H, W]."""
        y = self._shortcut.apply(params, x, normalise)
        for convolution in self._convolutions[:-1]:
            x = F.leaky_relu(convolution.apply(params, x, normalise), SLOPE)
        return F.leaky_relu(self._convolutions[-1].apply(params, x, normalise) + y, SLOPE)

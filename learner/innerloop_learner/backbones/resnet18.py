"""ResNet-18, as few-shot papers with larger images use it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.backbones.backbone import Backbone, Normalise, backbones, check_images
from innerloop_learner.backbones.residual import NormedConvolution, check_widths, means_of_maps
from innerloop_learner.layers import KERNEL, max_pool2d
from innerloop_learner.settings import setting
from innerloop_learner.tasks import Params

BLOCKS = 2
"""Residual blocks of a stage."""

LARGE_STEM = 7
"""Height and width of the first convolution of the large stem, in pixels."""


@dataclass(frozen=True)
class ResNet18Settings:
    """Settings of ResNet-18."""

    widths: Sequence[int] = setting((64, 128, 256, 512), "channels of the four stages")
    stem: Literal["large", "small"] = setting(
        "large", "how images enter: large quarters their size first; small leaves it, for images of 32 pixels or so"
    )
    norm: str = setting("task", "registered name of the norm behind every convolution")

    def __post_init__(self) -> None:
        check_widths(self.widths)


@backbones.register("resnet18")
class ResNet18(Backbone):
    """Eight residual blocks of two convolutions (He et al. 2016; Chen et al. 2019, section 4.1).

    With 3x3 convolutions c_1, c_2 and a 1x1 convolution r, each with a norm behind it, a block is

        x -> relu(c_2(relu(c_1(x))) + r(x))

    where r is the identity in blocks that change neither size nor channels. The last three of the four stages halve
    the image by strides, and features are the means of the last maps. The large stem is a 7x7 convolution of stride 2
    and 2x2 max-pooling (3x3 in the paper); the small one is a 3x3 convolution.

    Raises:
        ValueError: the input is not an image, or too small for the large stem.
    """

    settings_class = ResNet18Settings
    settings: ResNet18Settings

    def __init__(self, input_shape: tuple[int, ...], settings: ResNet18Settings) -> None:
        super().__init__(input_shape, settings)
        check_images("resnet18", input_shape)
        self._large = settings.stem == "large"
        if self._large and min(input_shape[1:]) < 32:
            raise ValueError(
                f"images of {input_shape[1]}x{input_shape[2]} are too small for the large stem; set stem to small"
            )
        kernel, stride = (LARGE_STEM, 2) if self._large else (KERNEL, 1)
        self._stem = NormedConvolution("stem0", input_shape[0], settings.widths[0], kernel, settings.norm, stride)
        self._blocks: list[_Block] = []
        inputs = settings.widths[0]
        for stage, width in enumerate(settings.widths):
            for block in range(BLOCKS):
                stride = 2 if stage and not block else 1
                self._blocks.append(_Block(f"block{len(self._blocks)}", inputs, width, settings.norm, stride))
                inputs = width
        self.depth = len(self._blocks)
        self._parts = [self._stem, *(part for block in self._blocks for part in block.parts)]
        self.norms = [part.norm for part in self._parts]
        self.features = inputs

    def init(self, generator: torch.Generator) -> Params:
        """See Backbone.init."""
        parts = (part.init(generator) for part in self._parts)
        return {name: value for part in parts for name, value in part.items()}

    def _layers(self, params: Params, x: Tensor, normalise: Normalise) -> Tensor:
        if self.begins:
            x = F.relu(self._stem.apply(params, x, normalise))
            x = max_pool2d(x) if self._large else x
        for number in self.span:
            x = self._blocks[number].apply(params, x, normalise)
        return means_of_maps(x, params["stem0.weight"]) if self.ends else x


class _Block:
    """A residual block.

    Args:
        name: prefix of the names of its parameters.
        inputs, outputs: channels.
        norm: registered name of the norms.
        stride: step of its first convolution, in pixels.

    Attributes:
        parts: its convolutions with their norms, the shortcut's last, if it has one.
    """

    def __init__(self, name: str, inputs: int, outputs: int, norm: str, stride: int) -> None:
        self._first = NormedConvolution(f"{name}.conv0", inputs, outputs, KERNEL, norm, stride)
        self._second = NormedConvolution(f"{name}.conv1", outputs, outputs, KERNEL, norm)
        changes = stride > 1 or inputs != outputs
        self._shortcut = NormedConvolution(f"{name}.shortcut", inputs, outputs, 1, norm, stride) if changes else None
        self.parts = [self._first, self._second, *([self._shortcut] if self._shortcut else [])]

    def apply(self, params: Params, x: Tensor, normalise: Normalise) -> Tensor:
        """The maps of x [T, N, C, H, W]."""
        y = F.relu(self._first.apply(params, x, normalise))
        y = self._second.apply(params, y, normalise)
        return F.relu(y + (self._shortcut.apply(params, x, normalise) if self._shortcut else x))

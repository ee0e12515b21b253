"""Conv4, the backbone of the few-shot papers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.backbones import fused_blocks
from innerloop_learner.backbones.backbone import Backbone, Features, Normalise, backbones
from innerloop_learner.backbones.fused_blocks import Block
from innerloop_learner.layers import (
    CONVOLUTION,
    KERNEL,
    conv2d,
    glorot,
    max_pool2d,
    of_each_task,
    scaled,
    takes_over,
)
from innerloop_learner.norms import Statistics, TaskBatchNorm, norms, shares_of
from innerloop_learner.settings import setting
from innerloop_learner.tasks import Params

MANY_IMAGES = 5
"""From this many images per task on, convolving tasks together gains nothing (measured on a CPU)."""


@dataclass(frozen=True)
class Conv4Settings:
    """Settings of Conv4."""

    width: int = setting(64, "channels of every block", least=1)
    downsample: Literal["max_pool", "stride"] = setting(
        "max_pool", "how blocks halve images; stride, in the convolution, takes about a quarter of the arithmetic"
    )
    norm: str = setting("task", "registered name of the norm in every block")


@backbones.register("conv4")
class Conv4(Backbone):
    """Four blocks of 3x3 convolution, norm and ReLU, each halving the image (channels, height, width).

    Max-pooling (Vinyals et al. 2016) stands before the ReLU, which comes to the same with less to do. Strides are those
    of MAML's Omniglot network (Finn et al. 2017).

    Raises:
        ValueError: the input is not an image, or too small to halve four times.
    """

    settings_class = Conv4Settings
    settings: Conv4Settings

    def __init__(self, input_shape: tuple[int, ...], settings: Conv4Settings) -> None:
        super().__init__(input_shape, settings)
        if len(input_shape) != 3:
            raise ValueError(f"conv4 takes images (channels, height, width), not inputs of shape {input_shape}")
        width = settings.width
        self._channels = (input_shape[0], width, width, width, width)
        self._pool = settings.downsample == "max_pool"
        height, breadth = input_shape[1:]
        for _ in range(4):
            height, breadth = (height // 2, breadth // 2) if self._pool else ((height + 1) // 2, (breadth + 1) // 2)
        if height * breadth == 0:
            raise ValueError(f"images of {input_shape[1]}x{input_shape[2]} are too small to halve four times")
        self.features = width * height * breadth
        self._maps = (width, height, breadth)
        self.norms = [norms[settings.norm](f"norm{block}", width) for block in range(4)]

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
            stride, known = 1 if self._pool else 2, normalise.as_affine(norm)
            if known is not None and takes_over(weight, *known):
                x = conv2d(x, *scaled(weight, bias, *known), stride)
            else:
                x = normalise(norm, conv2d(x, weight, bias, stride))
            if self._pool:
                x = max_pool2d(x)
            x = F.relu(x)
        return x.flatten(2).to(params["conv0.weight"].dtype)  # which convolutions in low precision leave

    def apply(self, params: Params, x: Tensor, weights: Tensor, statistics: Statistics | None = None) -> Features:
        """See Backbone.apply."""
        fused = self._fused(params, x, weights, statistics or {}) if fused_blocks.can_take(x) else None
        return fused or super().apply(params, x, weights, statistics)

    def _fused(self, params: Params, x: Tensor, weights: Tensor, given: Statistics) -> Features | None:
        """What `apply` returns, one task after the other; None where norms can't be fused, or layers are faster."""
        shared = params["conv0.weight"].dim() == CONVOLUTION
        known = [affine for norm in self.norms if (affine := norm.as_affine(params, given)) is not None]
        if len(known) == len(self.norms):
            if shared and all(scale.dim() == shift.dim() == 1 for scale, shift in known):
                # Nothing belongs to a task: all images are those of one.
                (blocks,) = self._tasks(params, known, 1)
                y = fused_blocks.affine(x.flatten(0, 1), blocks, self._pool)
                return Features(y.reshape(*x.shape[:2], -1), {})
            if not self._best_alone(x, shared=shared):
                return None
            tasks = self._tasks(params, known, len(x))
            parts = [fused_blocks.affine(xt, blocks, self._pool) for xt, blocks in zip(x, tasks, strict=True)]
            return Features(torch.stack(parts).flatten(2), {})
        standardise = [norm for norm in self.norms if type(norm) is TaskBatchNorm]
        if known or len(standardise) < len(self.norms) or not self._best_alone(x, shared=shared):
            return None
        tasks = self._tasks(params, [norm.learned(params) for norm in standardise], len(x))
        each = zip(x, shares_of(weights, x.dtype), tasks, strict=True)
        results = [fused_blocks.standardising(xt, shares, blocks, self._pool) for xt, shares, blocks in each]
        y, means, variances = (torch.stack(tensors) for tensors in zip(*results, strict=True))
        moments = zip(standardise, means.unbind(1), variances.unbind(1), strict=True)
        statistics = {name: value for norm, *own in moments for name, value in norm.statistics(*own).items()}
        return Features(y.flatten(2), statistics)

    def _best_alone(self, x: Tensor, *, shared: bool) -> bool:
        """Whether tasks are best convolved one by one; a few images of each are faster together, if weights allow."""
        return x.shape[0] == 1 or x.shape[1] >= MANY_IMAGES or not shared

    def _tasks(self, params: Params, affine: Sequence[tuple[Tensor, Tensor]], tasks: int) -> Iterator[list[Block]]:
        """The blocks of each task, whose norms multiply by and add these, [C] or [T, C] each."""
        columns = []
        for block, (scale, shift) in enumerate(affine):
            weight, bias = params[f"conv{block}.weight"], params[f"conv{block}.bias"]
            parts = [(weight, CONVOLUTION), (bias, 1), (scale, 1), (shift, 1)]
            columns.append(map(Block, *(of_each_task(value, dims, tasks) for value, dims in parts)))
        return map(list, zip(*columns, strict=True))

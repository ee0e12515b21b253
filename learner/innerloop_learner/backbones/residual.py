"""What residual networks have in common: a convolution with its norm, four widths, and means of maps as features."""

from collections.abc import Sequence

import torch
from torch import Tensor

from innerloop_learner.backbones.backbone import Normalise
from innerloop_learner.layers import conv2d, glorot
from innerloop_learner.norms import norms
from innerloop_learner.tasks import Params


def check_widths(widths: Sequence[int]) -> None:
    """Check the widths of four stages. Raises ValueError."""
    if len(widths) != 4 or min(widths) < 1:
        raise ValueError(f"widths must be four numbers from 1 up, not {list(widths)}")


def means_of_maps(x: Tensor, weight: Tensor) -> Tensor:
    """Features [T, N, C] of maps [T, N, C, H, W], in the type of a weight: low precision may have left another."""
    return x.mean((3, 4)).to(weight.dtype)


class NormedConvolution:
    """A convolution and the norm behind it.

    Args:
        name: prefix of the names of its parameters.
        inputs, outputs: channels.
        kernel: height and width, in pixels.
        norm: registered name of the norm.
        stride: step in pixels, in both directions.

    Attributes:
        norm: the norm.
    """

    def __init__(self, name: str, inputs: int, outputs: int, kernel: int, norm: str, stride: int = 1) -> None:
        self._name, self._shape, self._stride = name, (outputs, inputs, kernel, kernel), stride
        self.norm = norms[norm](f"{name}.norm", outputs)

    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters."""
        return {
            f"{self._name}.weight": glorot(generator, *self._shape),
            f"{self._name}.bias": torch.zeros(self._shape[0]),
            **self.norm.init(),
        }

    def apply(self, params: Params, x: Tensor, normalise: Normalise) -> Tensor:
        """Convolve x [T, N, C, H, W] and normalise the result."""
        weight, bias = params[f"{self._name}.weight"], params[f"{self._name}.bias"]
        return normalise(self.norm, conv2d(x, weight, bias, self._stride))

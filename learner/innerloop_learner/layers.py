"""Task-batched layers: the place that knows whether a layer's weights are shared or belong to each task.

Activations are always [T, N, ...]. If all tasks share a weight, tasks fold into the batch. If a weight has a leading
task dimension, each task has its own, and tasks run side by side. Backbones and heads built on these layers never ask
which of the two it is; only `fused_conv4` does, whose blocks replace several layers on a CPU.
"""

import math
from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

KERNEL = 3
"""Height and width of convolutions, in pixels, where nothing else is said."""

CONVOLUTION = 4
"""Number of dimensions of a convolution's weight that all tasks share; the weights of single tasks have one more."""

TaskConvolution = Literal["loop", "grouped", "matmul"]
"""A name of `TASK_CONVOLUTIONS`."""


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Affine map of [T, N, I] to [T, N, O].

    Args:
        x: inputs [T, N, I].
        weight: [O, I] shared, or [T, O, I] one per task.
        bias: [O] or [T, O].

    Example:
        >>> x = torch.ones(2, 3, 4)  # two tasks of three examples
        >>> linear(x, torch.ones(5, 4), torch.zeros(5)).shape
        torch.Size([2, 3, 5])
        >>> linear(x, torch.tensor([1.0, 2.0]).view(2, 1, 1).expand(2, 5, 4), torch.zeros(2, 5))[:, 0, 0]
        tensor([4., 8.])
    """
    if weight.dim() == 2:
        return F.linear(x, weight, bias)
    return torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j|^2 of x [T, N, F] and y [T, M, F], [T, N, M]."""
    norms = x.square().sum(-1, keepdim=True) + y.square().sum(-1).unsqueeze(1)
    return torch.baddbmm(norms, x, y.transpose(1, 2), alpha=-2)


def conv2d(
    x: Tensor, weight: Tensor, bias: Tensor, stride: int = 1, task_convolution: TaskConvolution | None = None
) -> Tensor:
    """Convolution of [T, N, I, H, W] to [T, N, O, H / stride, W / stride] (rounded up).

    Images are padded by zeros so that a stride of 1 leaves them as large as they are.

    Args:
        x: inputs [T, N, I, H, W].
        weight: [O, I, K, K] shared, or [T, O, I, K, K] one per task, for an odd K such as 3.
        bias: [O] or [T, O].
        stride: step in pixels, in both directions.
        task_convolution: name of the way in `TASK_CONVOLUTIONS` to convolve tasks that have weights of their own.
            None takes what is fastest on most devices (measured): "loop" on a CPU, "grouped" elsewhere.

    Example:
        >>> x = torch.zeros(2, 3, 1, 8, 8)  # two tasks of three images
        >>> conv2d(x, torch.zeros(16, 1, 3, 3), torch.zeros(16)).shape
        torch.Size([2, 3, 16, 8, 8])
        >>> conv2d(x, torch.zeros(2, 16, 1, 3, 3), torch.zeros(2, 16), stride=2).shape
        torch.Size([2, 3, 16, 4, 4])
    """
    height, width = x.shape[-2:]
    if height == width == 1:
        stride = 1  # the same, but with a stride of 2 oneDNN's gradient in bfloat16 holds memory that nothing has set
    if weight.shape[-1] == 1 and stride > 1:
        # The same, but with a stride oneDNN 3.12 overwrites memory that is not its own in the gradient of few channels,
        # on CPUs that have AVX2 and not AVX-512.
        x, stride = x[..., ::stride, ::stride], 1
    if weight.dim() == CONVOLUTION:
        tasks, examples, channels, height, width = x.shape
        folded = channels_last(x.reshape(tasks * examples, channels, height, width))
        y = F.conv2d(folded, weight, bias, stride, _padding(weight))
        return y.view(tasks, examples, *y.shape[1:])
    form = task_convolution or ("loop" if x.device.type == "cpu" else "grouped")
    return TASK_CONVOLUTIONS[form](x, weight, bias, stride)


def of_each_task(value: Tensor, dims: int, tasks: int) -> Iterable[Tensor]:
    """The parameter of each task; a value of only `dims` dimensions is shared by all tasks, and comes T times."""
    if value.dim() == dims:
        return repeat(value, tasks)
    return value.unbind() if tasks > 1 else (value.squeeze(0),)  # the gradient of squeeze is a view


def scaled(weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Weight [..., O, I, 3, 3] and bias [..., O] of a convolution that also multiplies by `scale` and adds `shift`."""
    return weight * scale[..., None, None, None], torch.addcmul(shift, bias, scale)


def max_pool2d(x: Tensor) -> Tensor:
    """2x2 maximum with stride 2 of [T, N, C, H, W]."""
    tasks, examples = x.shape[:2]
    y = F.max_pool2d(x.transpose(0, 1).flatten(0, 1), 2) if _folded(x) else F.max_pool2d(x.flatten(0, 1), 2)
    if _folded(x):
        return y.view(examples, tasks, *y.shape[1:]).transpose(0, 1)
    return y.view(tasks, examples, *y.shape[1:])


def mean_pool2d(x: Tensor) -> Tensor:
    """2x2 mean with stride 2 of [T, N, C, H, W]."""
    height, width = (size // 2 * 2 for size in x.shape[-2:])
    rows = x[..., 0:height:2, :] + x[..., 1:height:2, :]
    return (rows[..., 0:width:2] + rows[..., 1:width:2]) / 4


def mean_filter2d(x: Tensor) -> Tensor:
    """3x3 mean with stride 1 of [T, N, C, H, W]; beyond the border there are zeros.

    Example:
        >>> mean_filter2d(torch.full((1, 1, 1, 3, 3), 9.0))[0, 0, 0]
        tensor([[4., 6., 4.],
                [6., 9., 6.],
                [4., 6., 4.]])
    """
    padded = F.pad(x, (1, 1, 1, 1))
    rows = padded[..., :-2, :] + padded[..., 1:-1, :] + padded[..., 2:, :]
    return (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]) / 9


def channels_last(x: Tensor) -> Tensor:
    """Store channels last in memory on a CPU, where pooling is then 20 times and a convolution 1.1 times as fast."""
    if x.device.type != "cpu":
        return x
    if x.shape[1] == 1:  # both layouts are the same in memory; these strides tell PyTorch that channels come last
        return x.reshape(x.shape[0], *x.shape[2:], 1).permute(0, 3, 1, 2)
    return x.contiguous(memory_format=torch.channels_last)


def glorot(generator: torch.Generator, *shape: int) -> Tensor:
    """Glorot-uniform weights [O, I, ...] (Glorot and Bengio 2010, equation 16)."""
    receptive = math.prod(shape[2:])
    bound = math.sqrt(6 / ((shape[0] + shape[1]) * receptive))
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def _loop(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """Run one convolution per task, one after the other: each keeps all cores of a CPU busy."""
    if x.shape[0] == 1:
        x, weight, bias = (tensor.squeeze(0) for tensor in (x, weight, bias))
        return F.conv2d(channels_last(x), channels_last(weight), bias, stride, _padding(weight)).unsqueeze(0)
    # The gradient of unbind is one stack; indexing each task would give T zero-padded copies.
    parts = zip(x.unbind(), weight.unbind(), bias.unbind(), strict=True)
    padding = _padding(weight)
    return torch.stack([F.conv2d(channels_last(xt), channels_last(wt), bt, stride, padding) for xt, wt, bt in parts])


def _grouped(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """Make each task a group of channels. The transposed result is a view, so the next layer folds without a copy."""
    tasks, examples, channels, height, width = x.shape
    folded = channels_last(x.transpose(0, 1).reshape(examples, tasks * channels, height, width))
    y = F.conv2d(folded, weight.flatten(0, 1), bias.flatten(), stride, _padding(weight), groups=tasks)
    return y.view(examples, tasks, -1, *y.shape[2:]).transpose(0, 1)


def _matmul(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """Make patches columns (im2col), so that the convolution is one batched matrix product."""
    tasks, examples, channels, height, width = x.shape
    size = ((height + stride - 1) // stride, (width + stride - 1) // stride)
    images, kernel = x.reshape(tasks * examples, channels, height, width), weight.shape[-1]
    patches = F.unfold(images, kernel, padding=_padding(weight), stride=stride)
    columns = patches.view(tasks, examples, *patches.shape[1:]).transpose(1, 2).flatten(2)  # [T, I * K * K, N * H * W]
    y = torch.baddbmm(bias.unsqueeze(-1), weight.flatten(2), columns)  # [T, O, N * H * W]
    return y.view(*y.shape[:2], examples, *size).transpose(1, 2)


TASK_CONVOLUTIONS: dict[TaskConvolution, Callable[[Tensor, Tensor, Tensor, int], Tensor]] = {
    "loop": _loop,
    "grouped": _grouped,
    "matmul": _matmul,
}
"""Ways to run a convolution of [T, N, I, H, W] with weights [T, O, I, K, K], biases [T, O] and a stride."""


def _padding(weight: Tensor) -> int:
    """Zeros on each side of an image, in pixels, that let a convolution keep its size."""
    return weight.shape[-1] // 2


def _folded(x: Tensor) -> bool:
    """Whether [T, N, ...] lies in memory as [N, T, ...], as a grouped convolution leaves it."""
    return x.stride(0) < x.stride(1)

"""Blocks of convolution, norm, pooling and ReLU on a CPU whose gradients can be differentiated again.

Like `fused_blocks`, they take one task after the other, so that activations stay in the caches from layer to layer.
Most of the time of second-order meta-training is that of convolutions, which run at the speed of the processor, and of
passes over activations, which run at that of the memory. So there are as few passes as operations of PyTorch allow:

- Norms with positive scales keep the order of values, so that pooling may come before them and leave them a quarter of
  the work.
- Moments have their gradients in closed form.
- The second derivatives of convolutions are three convolutions again. PyTorch transposes images and channels for them,
  whose kernels are then as large as the images.
- The second derivative of pooling picks elements by their number, several times as fast as by their place in a map.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.backbones.fused_blocks import Block
from innerloop_learner.layers import KERNEL, channels_last, scaled
from innerloop_learner.norms import EPSILON

aten = torch.ops.aten

FEW_CHANNELS = 8
"""With fewer channels of x than this, as images have, oneDNN's gradients of a weight and a bias together take half as
long again as that of the weight alone, or twice as long (measured on one core: 6.4 and 2.7 ms for 75 drawings of 28x28
pixels, 8.9 and 6.0 ms for 75 photographs of 32x32)."""


def standardising(
    x: Tensor, shares: Tensor | None, blocks: Sequence[Block], pool: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Run blocks whose norms compute mean and variance from x; arguments and results as of `fused_blocks`."""
    moments: list[tuple[Tensor, Tensor]] = []
    for block in blocks:
        y = _convolved(channels_last(x), channels_last(block.weight), block.bias, 1 if pool else 2)
        mean, variance = _moments(y, shares)
        moments.append((mean, variance))
        increasing = bool((block.scale > 0).all())
        if pool and increasing:
            y = _pooled(y)
        centred = y + _by_channel(-mean)  # a difference would have its gradient negated in a pass of its own
        slope = block.scale * (variance + EPSILON).rsqrt()
        y = torch.addcmul(_by_channel(block.shift), centred, _by_channel(slope))
        if pool and not increasing:
            y = _pooled(channels_last(y))
        x = F.relu(y)
    means, variances = zip(*moments, strict=True)
    return x, torch.stack(means), torch.stack(variances)


def affine(x: Tensor, blocks: Sequence[Block], pool: bool) -> Tensor:
    """Run blocks whose norms only multiply and add; arguments and result as of `fused_blocks`."""
    for block in blocks:
        weight, bias = scaled(*block)
        y = _convolved(channels_last(x), channels_last(weight), bias, 1 if pool else 2)
        x = F.relu(F.max_pool2d(y, 2) if pool else y, inplace=True)
    return x


class _Convolved(torch.autograd.Function):
    """3x3 convolution of x [N, I, H, W] with a weight [O, I, 3, 3], a bias [O] and a stride.

    Here and below callers store tensors channels last. What a function stores anew and saves would have no past, and
    second derivatives would miss it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return F.conv2d(x, weight, bias, stride, padding=1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        of_x = ctx.needs_input_grad[0]
        return *_convolved_gradients(channels_last(grad), *ctx.saved_tensors, ctx.stride, of_x), None


class _ConvolvedGradients(torch.autograd.Function):
    """The gradients of `_Convolved`, of x (None where it is not asked for), weight and bias."""

    @staticmethod
    def forward(
        ctx: Any, grad: Tensor, x: Tensor, weight: Tensor, stride: int, of_x: bool
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        ctx.save_for_backward(grad, x, weight)
        ctx.stride, ctx.of_x = stride, of_x
        ctx.set_materialize_grads(False)
        return _gradients(grad, x, weight, stride, (of_x, True, True))

    @staticmethod
    def backward(
        ctx: Any, x_grad: Tensor | None, weight_grad: Tensor | None, bias_grad: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        grad, x, weight = ctx.saved_tensors
        of_grad = of_x = of_weight = None
        if x_grad is not None:
            x_grad = channels_last(x_grad)
            of_grad = F.conv2d(x_grad, weight, None, ctx.stride, padding=1)
            of_weight = _gradients(grad, x_grad, weight, ctx.stride, (False, True, False))[1]
        if weight_grad is not None:
            weight_grad = channels_last(weight_grad)
            along = F.conv2d(x, weight_grad, bias_grad, ctx.stride, padding=1)
            of_grad = along if of_grad is None else along.add_(of_grad)
            if ctx.of_x:
                of_x = _gradients(grad, x, weight_grad, ctx.stride, (True, False, False))[0]
        elif bias_grad is not None:
            along = _by_channel(bias_grad).expand_as(grad)
            of_grad = along if of_grad is None else of_grad + along
        return of_grad, of_x, of_weight, None, None


class _Moments(torch.autograd.Function):
    """Mean and biased variance [C] of x [N, C, H, W] over positions, and over examples by their shares [N], if any."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shares: Tensor | None) -> tuple[Tensor, Tensor]:
        mean = _mean(x, shares)
        variance = _mean((x - _by_channel(mean)).square_(), shares)
        ctx.save_for_backward(x, shares, mean)
        return mean, variance

    @staticmethod
    def backward(ctx: Any, mean_grad: Tensor, variance_grad: Tensor) -> tuple[Tensor, None]:
        x, shares, mean = ctx.saved_tensors
        positions = x.shape[2:].numel()
        share = 1 / (len(x) * positions) if shares is None else shares[:, None] / positions
        slope = variance_grad * (2 * share)  # [C] or [N, C]
        summand = torch.addcmul(mean_grad * share, mean, slope, value=-1)
        return torch.addcmul(_by_channel(summand), x, _by_channel(slope)), None


class _Pooled(torch.autograd.Function):
    """2x2 maximum with stride 2 of x [N, C, H, W], stored channels last."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y: Tensor
        y, places = aten.max_pool2d_with_indices(x, [2, 2], [2, 2])
        ctx.save_for_backward(x, places)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _pooled_gradient(channels_last(grad), *ctx.saved_tensors)


class _PooledGradient(torch.autograd.Function):
    """The gradient of `_Pooled`, whose input is x and whose maxima are at `places` in a map."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        pooling = ([2, 2], [2, 2], [0, 0], [1, 1], False)
        found: Tensor = aten.max_pool2d_with_indices_backward(grad, x, *pooling, places)
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        examples, channels, height, width = grad.shape
        # Numbers of the maxima in memory, where channels come last.
        first = torch.arange(examples).view(-1, 1, 1, 1) * (height * width * channels)
        numbers = torch.add(first + torch.arange(channels).view(-1, 1, 1), places, alpha=channels)
        values = channels_last(grad).permute(0, 2, 3, 1).flatten()
        picked = values.index_select(0, numbers.permute(0, 2, 3, 1).flatten())
        return picked.view(examples, *places.shape[2:], channels).permute(0, 3, 1, 2), None, None


_convolved: Callable[[Tensor, Tensor, Tensor, int], Tensor] = _Convolved.apply
_convolved_gradients: Callable[..., tuple[Tensor | None, Tensor, Tensor]] = _ConvolvedGradients.apply
_moments: Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]] = _Moments.apply
_pooled: Callable[[Tensor], Tensor] = _Pooled.apply
_pooled_gradient: Callable[[Tensor, Tensor, Tensor], Tensor] = _PooledGradient.apply


def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, asked: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Gradients of x, weight and bias of a convolution, those that are asked for."""
    if asked == (False, True, True) and x.shape[1] < FEW_CHANNELS:
        # The gradient of the bias is that of a weight on ones, in the middle of the kernel, where no padding comes.
        with_ones = channels_last(torch.cat([x, torch.ones_like(x[:, :1])], 1))
        both = _gradients(
            grad, with_ones, weight.new_empty(len(weight), x.shape[1] + 1, KERNEL, KERNEL), stride, (False, True, False)
        )[1]
        return None, both[:, :-1], both[:, -1, KERNEL // 2, KERNEL // 2]
    sizes = ([len(weight)], [stride, stride], [1, 1], [1, 1], False, [0, 0], 1)
    gradients: tuple[Tensor | None, Tensor, Tensor] = aten.convolution_backward(grad, x, weight, *sizes, list(asked))
    return gradients


def _mean(x: Tensor, shares: Tensor | None) -> Tensor:
    """Mean of x [N, C, H, W] over positions, and over examples by their shares [N], if there are any: [C]."""
    return x.mean((0, 2, 3)) if shares is None else shares @ x.mean((2, 3))


def _by_channel(values: Tensor) -> Tensor:
    """View [C] or [N, C] so that it broadcasts over [N, C, H, W]."""
    return values.view(-1, values.shape[-1], 1, 1)

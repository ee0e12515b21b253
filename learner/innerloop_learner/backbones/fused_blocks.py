"""Blocks of convolution, norm, pooling and ReLU on a CPU: one task after the other, in few operations.

Layers that take all tasks at once are slow on a CPU: PyTorch dispatches, records and allocates for thousands of small
operations, and activations leave the caches between layers. Here one task goes through all blocks while its activations
are in the caches, and the gradient of all blocks together is one operation in closed form. That gradient can't be
differentiated again. Meta-training takes it for inner steps of first order, and `training_blocks` for others.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from innerloop_learner.layers import channels_last, scaled
from innerloop_learner.norms import EPSILON

aten = torch.ops.aten

POSITIONS = (0, 2, 3)
"""Dimensions of [N, C, H, W] that a norm takes moments over."""


class Block(NamedTuple):
    """Parameters of one block for one task.

    Attributes:
        weight: weight of the 3x3 convolution, [O, I, 3, 3].
        bias: bias of the convolution, [O].
        scale, shift: factor and summand of the norm, [O] each.
    """

    weight: Tensor
    bias: Tensor
    scale: Tensor
    shift: Tensor


def standardising(
    x: Tensor, shares: Tensor | None, blocks: Sequence[Block], pool: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Run blocks whose norms compute mean and variance from x.

    Args:
        x: inputs of one task, [N, C, H, W].
        shares: weight of each example in means and variances, [N]; they sum to 1, and padding has 0. None where all
            examples count alike, which takes fewer operations (a sixth of those that MAML takes to adapt).
        blocks: B blocks of O channels each.
        pool: whether a block halves its maps by 2x2 max-pooling; otherwise its convolution has stride 2.

    Returns:
        maps [N, O, H', W'], and means [B, O] and biased variances [B, O] of the outputs of the convolutions.
    """
    return _standardising(x, shares, pool, *(tensor for block in blocks for tensor in block))


def affine(x: Tensor, blocks: Sequence[Block], pool: bool) -> Tensor:
    """Run blocks whose norms only multiply and add, which is folded into the weights of their convolutions.

    The arguments are those of `standardising`. Returns maps [N, O, H', W'].
    """
    for block in blocks:
        weight, bias = scaled(*block)
        x = F.conv2d(channels_last(x), channels_last(weight), bias, 1 if pool else 2, padding=1)
        x = F.relu(F.max_pool2d(x, 2) if pool else x, inplace=True)
    return x


class _Kept(NamedTuple):
    """Tensors that the gradient of a block needs, besides its parameters.

    Attributes:
        x: input of the block.
        centred: output of the convolution minus its mean.
        inverse: 1 / standard deviation of the output of the convolution.
        y: output of the block.
        maxima: positions of the maxima that pooling found; None without pooling.
    """

    x: Tensor
    centred: Tensor
    inverse: Tensor
    y: Tensor
    maxima: Tensor | None


class _Standardising(torch.autograd.Function):
    """See `standardising`. Takes x, shares, whether to pool, and the tensors of all blocks.

    The norm is written out because PyTorch's kernels for it add up positions one by one. Their rounding error is ten
    times that of `sum` and `mean`, which add in pairs, and a steep inner loop turns it into other answers.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, shares: Tensor | None, pool: bool, *tensors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        kept: list[_Kept] = []
        moments: list[tuple[Tensor, Tensor]] = []
        for block in _blocks(tensors):
            x = channels_last(x)
            convolved = F.conv2d(x, channels_last(block.weight), block.bias, 1 if pool else 2, padding=1)
            mean = _mean(convolved, shares)
            centred = convolved.sub_(_by_channel(mean))
            variance = _mean(centred.square(), shares)
            inverse = (variance + EPSILON).rsqrt()
            y = torch.addcmul(_by_channel(block.shift), centred, _by_channel(block.scale * inverse))
            maxima = None
            if pool:
                y, maxima = aten.max_pool2d_with_indices(y, [2, 2], [2, 2])
            kept.append(_Kept(x, centred, inverse, y.relu_(), maxima))
            moments.append((mean, variance))
            x = y
        ctx.pool = pool
        ctx.save_for_backward(shares, *tensors, *(tensor for block in kept for tensor in block))
        ctx.set_materialize_grads(False)
        means, variances = zip(*moments, strict=True)
        return x, torch.stack(means), torch.stack(variances)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, means_grad: None, variances_grad: None) -> tuple[Tensor | None, ...]:
        if means_grad is not None or variances_grad is not None:
            raise NotImplementedError("moments are not differentiated here")
        shares, *saved = ctx.saved_tensors
        count = len(saved) // (len(Block._fields) + len(_Kept._fields))
        split = len(Block._fields) * count
        blocks = _blocks(saved[:split])
        kept = [_Kept(*saved[at : at + len(_Kept._fields)]) for at in range(split, len(saved), len(_Kept._fields))]
        stride = [1, 1] if ctx.pool else [2, 2]
        grads: list[Tensor] = []
        for index, (block, own) in reversed(list(enumerate(zip(blocks, kept, strict=True)))):
            grad = aten.threshold_backward(channels_last(grad), own.y, 0)
            if own.maxima is not None:
                # The gradient of pooling reads only shape and layout of its input; `centred` has the same.
                pooling = ([2, 2], [2, 2], [0, 0], [1, 1], False)
                grad = aten.max_pool2d_with_indices_backward(grad, own.centred, *pooling, own.maxima)
            grad, *norm_grads = _standardised_backward(grad, own, block.scale, shares)
            asked = [index > 0 or ctx.needs_input_grad[0], True, True]
            sizes = (list(block.bias.shape), stride, [1, 1], [1, 1], False, [0, 0], 1)
            grad, *conv_grads = aten.convolution_backward(grad, own.x, channels_last(block.weight), *sizes, asked)
            grads = [*conv_grads, *norm_grads, *grads]
        return grad, None, None, *grads


def _standardised_backward(
    grad: Tensor, kept: _Kept, scale: Tensor, shares: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the norm's input, of its scale and of its shift (Ioffe and Szegedy 2015, section 3)."""
    shift_grad = grad.sum(POSITIONS)
    scale_grad = (grad * kept.centred).sum(POSITIONS) * kept.inverse
    factor = scale * kept.inverse
    if shares is None:
        share = factor * (-scale.numel() / grad.numel())  # of one position, [C]
    else:
        share = -shares[:, None] / grad.shape[2:].numel() * factor  # of one position of an example, [N, C]
    at_mean, at_variance = shift_grad * share, scale_grad * kept.inverse * share
    rest = torch.addcmul(_by_channel(at_mean), kept.centred, _by_channel(at_variance))
    return rest.addcmul_(grad, _by_channel(factor)), scale_grad, shift_grad


def _mean(x: Tensor, shares: Tensor | None) -> Tensor:
    """Mean of x [N, C, H, W] over positions, and over examples by their shares [N], if there are any: [C]."""
    return x.mean(POSITIONS) if shares is None else shares @ x.mean((2, 3))


def _by_channel(values: Tensor) -> Tensor:
    """View [C] or [N, C] so that it broadcasts over [N, C, H, W]."""
    return values.view(-1, values.shape[-1], 1, 1)


_standardising: Callable[..., tuple[Tensor, Tensor, Tensor]] = _Standardising.apply


def _blocks(tensors: Sequence[Tensor]) -> list[Block]:
    size = len(Block._fields)
    return [Block(*tensors[at : at + size]) for at in range(0, len(tensors), size)]

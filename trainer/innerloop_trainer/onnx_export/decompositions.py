"""Replaces operators that ONNX lacks by operators that it has.

Operators are replaced after differentiation, so the gradients of inner loops are among those replaced here.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._decomp import core_aten_decompositions, get_decompositions

from innerloop_learner.loops import repeat, row
from innerloop_learner.tasks import Params

aten = torch.ops.aten


def decompositions() -> dict[Any, Callable[..., Any]]:
    """PyTorch's decompositions to core operators, and ours."""
    return {
        **core_aten_decompositions(),
        **get_decompositions([aten.var_mean.correction]),
        aten.convolution_backward.default: convolution_backward,
        aten.max_pool2d_with_indices_backward.default: max_pool2d_backward,
        aten._linalg_solve_ex.default: solve_positive_definite,
        aten._linalg_check_errors.default: trust,
        # The gradient of a vector's length fills a tensor that it has just made in place, which ONNX can't.
        aten.masked_fill_.Scalar: aten.masked_fill.Scalar,
        aten.sort.stable: stable_sort,
        aten.sum.dim_IntList: sum_by_dimension,
        aten.squeeze.dims: squeeze,
        aten.lerp.Scalar: interpolate,
    }


def convolution_backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    wanted: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of a convolution's inputs [N, I, H, W], weights [O, I, h, w] and bias [O].

    The gradient of the inputs is a transposed convolution. That of the weights is a product of two matrices: patches of
    the inputs as columns, and the gradient [N, O, H', W'].

    Raises:
        NotImplementedError: the convolution is transposed or dilated, or has groups.
    """
    del bias_sizes, output_padding
    if transposed or groups != 1 or set(dilation) != {1}:
        raise NotImplementedError("only plain convolutions can be exported with their gradients")
    x_gradient = weight_gradient = bias_gradient = None
    if wanted[0]:
        size, kernel, given = x.shape[2:], weight.shape[2:], gradient.shape[2:]
        missing = [size[i] - (given[i] - 1) * stride[i] + 2 * padding[i] - kernel[i] for i in range(2)]
        x_gradient = aten.convolution(gradient, weight, None, stride, padding, dilation, True, missing, 1)
    if wanted[1]:
        by_channel = gradient.transpose(0, 1).flatten(1)  # [O, N * H' * W']
        product = by_channel @ _columns(x, weight.shape[2:], padding, stride, gradient.shape[2:]).T
        weight_gradient = product.view(weight.shape[0], *weight.shape[2:], -1).permute(0, 3, 1, 2)
    if wanted[2]:
        bias_gradient = gradient.sum((0, 2, 3))
    return x_gradient, weight_gradient, bias_gradient


def _columns(
    x: Tensor, kernel: Sequence[int], padding: Sequence[int], stride: Sequence[int], size: Sequence[int]
) -> Tensor:
    """Patches of x [N, I, H, W] at `size` places as columns [h * w * I, N * H' * W']."""
    padded = F.pad(x.transpose(0, 1), (padding[1], padding[1], padding[0], padding[0]))
    height, width = ((size[i] - 1) * stride[i] + 1 for i in range(2))
    patches = [
        padded[:, :, i : i + height : stride[0], j : j + width : stride[1]]
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]
    return torch.cat(patches).flatten(1)


def max_pool2d_backward(
    gradient: Tensor,
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil: bool,
    indices: Tensor,
) -> Tensor:
    """Gradient of max-pooling over windows of x [N, C, H, W] that neither overlap nor are padded.

    If several elements of a window are largest, the first one gets the gradient [N, C, H', W'], as in PyTorch. It is
    found by comparing, because the indices of the maxima would need a scatter.

    Raises:
        NotImplementedError: windows overlap, are padded or dilated.
    """
    del indices
    if list(stride or kernel) != list(kernel) or any(padding) or ceil or set(dilation) != {1}:
        raise NotImplementedError("only maxima over windows side by side can be exported")
    height, width = gradient.shape[2:]
    down, across = kernel
    elements = [
        x[:, :, i : height * down : down, j : width * across : across] for i in range(down) for j in range(across)
    ]
    largest = elements[0]
    for element in elements[1:]:
        largest = torch.maximum(largest, element)
    taken = elements[0] == largest
    shares = [torch.where(taken, gradient, 0.0)]
    for element in elements[1:]:
        equal = element == largest
        shares.append(torch.where(equal & ~taken, gradient, 0.0))
        taken = taken | equal
    # Rows of windows are moved before columns: ONNX Runtime is slow at permuting four dimensions at once.
    rows = [torch.stack(shares[i : i + across], -1).flatten(-2) for i in range(0, len(shares), across)]
    whole = torch.stack(rows, 3).flatten(2, 3)
    return F.pad(whole, (0, x.shape[3] - whole.shape[3], 0, x.shape[2] - whole.shape[2]))


def sum_by_dimension(
    x: Tensor, dims: Sequence[int] | None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Any:
    """Sum over several dimensions one by one, the last one first, because together they may not be contiguous."""
    if dtype is not None or not dims or len(dims) < 2:
        return NotImplemented  # leaves the operator as it is
    total = x
    for dimension in sorted((dimension % x.dim() for dimension in dims), reverse=True):
        total = total.sum(dimension, keepdim)
    return total


def interpolate(start: Tensor, end: Tensor, weight: float) -> Tensor:
    """Linear interpolation. PyTorch's own decomposition asks for strides, which ONNX does not know."""
    return start + weight * (end - start)


def solve_positive_definite(
    a: Tensor, b: Tensor, *, left: bool = True, check_errors: bool = False
) -> tuple[Tensor, ...]:
    """Solution of a x = b for symmetric positive definite a [..., N, N] and b [..., N, M], by Gauss-Jordan elimination.

    Positive definite systems need no pivots (Golub and Van Loan 2013, section 4.2.2). The solution is in double
    precision, since a graph solves systems as large as the support set even where there are fewer features.

    Returns:
        the four results of `torch.linalg.solve_ex`'s operator: the solution, and placeholders for factors, pivots and
        error codes, which must not be used.

    Raises:
        NotImplementedError: the system is x a = b, or b has not as many dimensions as a.
    """
    del check_errors
    if not left or a.dim() != b.dim():
        raise NotImplementedError("only a x = b for matrices a and b can be exported")
    size = a.shape[-1]
    ones = torch.eye(size, dtype=torch.float64, device=a.device)

    def eliminate(index: Any, carried: Params) -> tuple[Params, Params]:
        system = carried["system"]  # [..., N, N + M]
        unit = row(ones, index).unsqueeze(1)  # [N, 1]
        line = (system * unit).sum(-2, keepdim=True)
        pivot = (line[..., :size] * unit.transpose(0, 1)).sum(-1, keepdim=True)
        line = line / pivot
        column = (system[..., :size] * unit.transpose(0, 1)).sum(-1, keepdim=True)
        return {"system": system - (column - unit) * line}, {}

    start = torch.cat([a, b.expand(*a.shape[:-1], b.shape[-1])], -1).double()
    solved = repeat(eliminate, {"system": start}, size)[0]["system"][..., size:]
    return solved.to(a.dtype), a, *(torch.zeros(a.shape[:-2], dtype=torch.int32) for _ in range(2))


def trust(info: Tensor, name: str, *, is_matrix: bool) -> None:
    """Replace a check of error codes, which a graph does not have, by nothing."""
    del info, name, is_matrix


def stable_sort(
    x: Tensor, *, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> tuple[Tensor, Tensor]:
    """Sort integers x along a dimension, and keep the order of equal ones; returns them and their former positions.

    Raises:
        NotImplementedError: x does not hold integers.
    """
    del stable
    if x.is_floating_point():
        raise NotImplementedError("only integers can be exported in stable order")
    size = x.shape[dim]
    places = torch.arange(size, device=x.device).view(-1, *[1] * (x.dim() - 1 - dim % x.dim()))
    unique = x * size + (-places if descending else places)
    indices = unique.topk(size, dim, largest=descending).indices
    return x.gather(dim, indices), indices


def squeeze(x: Tensor, dims: Sequence[int]) -> Tensor:
    """X without those of the dimensions `dims` that have size 1; ONNX's exporter knows no list of dimensions."""
    for dim in sorted((dim % x.dim() for dim in dims), reverse=True):
        if x.shape[dim] == 1:
            x = x.select(dim, 0)
    return x

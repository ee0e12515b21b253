"""How operators that ONNX has no good match for are computed with those that it has.

All are differentiated already when they are decomposed: these are the operators of inner loops and their gradients.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._decomp import core_aten_decompositions

from innerloop_learner.loops import repeat
from innerloop_learner.tasks import Params

aten = torch.ops.aten


def decompositions() -> dict[Any, Callable[..., Any]]:
    """PyTorch's decompositions to core operators, and ours."""
    return {
        **core_aten_decompositions(),
        aten.im2col.default: im2col,
        aten.col2im.default: col2im,
        aten.max_pool2d_with_indices_backward.default: max_pool2d_backward,
        aten._linalg_solve_ex.default: solve_positive_definite,
        aten._linalg_check_errors.default: trust,
        aten.sort.stable: stable_sort,
    }


def im2col(
    x: Tensor, kernel: Sequence[int], dilation: Sequence[int], padding: Sequence[int], stride: Sequence[int]
) -> Tensor:
    """Patches of x [N, C, H, W] as columns [N, C * kernel, positions], by slices: `F.unfold` gathers by index."""
    padded = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    height, width = _positions(x.shape[2:], kernel, dilation, padding, stride)
    patches = [
        padded[:, :, i : i + (height - 1) * stride[0] + 1 : stride[0], j : j + (width - 1) * stride[1] + 1 : stride[1]]
        for i, j in _offsets(kernel, dilation)
    ]
    return torch.stack(patches, 2).reshape(x.shape[0], -1, height * width)


def col2im(
    columns: Tensor,
    size: Sequence[int],
    kernel: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> Tensor:
    """Sum of patches [N, C * kernel, positions] where they overlap, [N, C, *size]: the gradient of `im2col`."""
    height, width = _positions(size, kernel, dilation, padding, stride)
    patches = columns.reshape(columns.shape[0], -1, kernel[0] * kernel[1], height, width).unbind(2)
    padded = (size[0] + 2 * padding[0], size[1] + 2 * padding[1])
    placed = [
        F.pad(spread, (j, padded[1] - j - spread.shape[3], i, padded[0] - i - spread.shape[2]))
        for (i, j), spread in zip(_offsets(kernel, dilation), (_spread(p, stride) for p in patches), strict=True)
    ]
    total = placed[0]
    for more in placed[1:]:
        total = total + more
    return total[:, :, padding[0] : padding[0] + size[0], padding[1] : padding[1] + size[1]]


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
    """Gradient of maxima [N, C, H', W'] over windows of x [N, C, H, W] that neither overlap nor are padded.

    It goes to the first of several largest elements, as PyTorch's does, found by comparing: indices would have to be
    scattered.

    Raises:
        NotImplementedError: windows overlap, are padded or dilated.
    """
    del indices
    if list(stride or kernel) != list(kernel) or any(padding) or ceil or set(dilation) != {1}:
        raise NotImplementedError("only maxima over windows side by side can be exported")
    height, width = gradient.shape[2:]
    covered = x[:, :, : height * kernel[0], : width * kernel[1]]
    windows = covered.reshape(*x.shape[:2], height, kernel[0], width, kernel[1])
    elements = [windows[:, :, :, i, :, j] for i, j in _offsets(kernel, (1, 1))]
    largest = elements[0]
    for element in elements[1:]:
        largest = torch.maximum(largest, element)
    taken = torch.zeros_like(largest, dtype=torch.bool)
    shares = []
    for element in elements:
        first = (element == largest) & ~taken
        taken = taken | first
        shares.append(torch.where(first, gradient, 0.0))
    stacked = torch.stack(shares, 4).reshape(*x.shape[:2], height, width, *kernel).transpose(3, 4)
    whole = stacked.reshape(*x.shape[:2], height * kernel[0], width * kernel[1])
    return F.pad(whole, (0, x.shape[3] - whole.shape[3], 0, x.shape[2] - whole.shape[2]))


def solve_positive_definite(
    a: Tensor, b: Tensor, *, left: bool = True, check_errors: bool = False
) -> tuple[Tensor, ...]:
    """Solution of a x = b for symmetric positive definite a [..., N, N] and b [..., N, M], by Gauss-Jordan elimination.

    No pivots are sought: positive definite systems need none (Golub and Van Loan 2013, section 4.2.2). In double
    precision, since a graph solves systems as large as the support set even where there are fewer features.

    Returns:
        what `torch.linalg.solve_ex` returns inside: the solution, and in place of factors and error codes nothing
        that may be used.
    """
    del left, check_errors
    size = a.shape[-1]
    ones = torch.eye(size, dtype=torch.float64, device=a.device)

    def eliminate(index: Any, carried: Params) -> tuple[Params, Params]:
        system = carried["system"]  # [..., N, N + M]
        unit = ones.index_select(0, torch.as_tensor(index).reshape(1)).transpose(0, 1)  # [N, 1]
        line = (system * unit).sum(-2, keepdim=True)
        pivot = (line[..., :size] * unit.transpose(0, 1)).sum(-1, keepdim=True)
        line = line / pivot
        column = (system[..., :size] * unit.transpose(0, 1)).sum(-1, keepdim=True)
        return {"system": system - (column - unit) * line}, {}

    start = torch.cat([a, b.expand(*a.shape[:-1], b.shape[-1])], -1).double()
    solved = repeat(eliminate, {"system": start}, size)[0]["system"][..., size:]
    return solved.to(a.dtype), a, *(torch.zeros(a.shape[:-2], dtype=torch.int32) for _ in range(2))


def trust(info: Tensor, name: str, *, is_matrix: bool) -> None:
    """In place of a check that would read error codes while the graph runs; there are none."""
    del info, name, is_matrix


def stable_sort(
    x: Tensor, *, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> tuple[Tensor, Tensor]:
    """Integers x in order along a dimension, equal ones in the order they were in, and where they were."""
    del stable
    size = x.shape[dim]
    places = torch.arange(size, device=x.device).view(-1, *[1] * (x.dim() - 1 - dim % x.dim()))
    unique = x * size + (-places if descending else places)
    indices = unique.topk(size, dim, largest=descending).indices
    return x.gather(dim, indices), indices


def _positions(
    size: Sequence[int], kernel: Sequence[int], dilation: Sequence[int], padding: Sequence[int], stride: Sequence[int]
) -> tuple[int, int]:
    """Number of patches down and across."""
    down, across = (
        (size[axis] + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1) // stride[axis] + 1
        for axis in range(2)
    )
    return down, across


def _offsets(kernel: Sequence[int], dilation: Sequence[int]) -> list[tuple[int, int]]:
    """Where each element of a patch lies, row by row."""
    return [(i * dilation[0], j * dilation[1]) for i in range(kernel[0]) for j in range(kernel[1])]


def _spread(x: Tensor, stride: Sequence[int]) -> Tensor:
    """X [N, C, H, W] with zeros between its elements, so that they are `stride` apart."""
    if set(stride) == {1}:
        return x
    height, width = x.shape[2:]
    apart = F.pad(x[:, :, :, None, :, None], (0, stride[1] - 1, 0, 0, 0, stride[0] - 1))
    whole = apart.reshape(*x.shape[:2], height * stride[0], width * stride[1])
    return whole[:, :, : (height - 1) * stride[0] + 1, : (width - 1) * stride[1] + 1]

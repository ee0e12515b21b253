"""What exported graphs compute in place of PyTorch's operators, against those operators in float64."""

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.fx.experimental.proxy_tensor import make_fx

from innerloop_trainer.onnx_export.check import runnable
from innerloop_trainer.onnx_export.decompositions import (
    convolution_backward,
    decompositions,
    max_pool2d_backward,
    solve_positive_definite,
    squeeze,
    stable_sort,
)
from innerloop_trainer.onnx_export.tracing import Example, trace

aten = torch.ops.aten
EPSILON = torch.finfo(torch.float64).eps
WANTED = (True, True, True)
FORMATS = [torch.contiguous_format, torch.channels_last]

seeds = st.integers(0, 2**32 - 1)
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def convolution(x_shape, kernel, stride, padding, seed=0, outputs=2, form=torch.contiguous_format):
    """Arguments of the gradient of such a convolution, up to those that say what it is not."""
    x, weight = normal(seed, *x_shape).to(memory_format=form), normal(seed + 1, outputs, x_shape[1], *kernel)
    gradient = normal(seed + 2, *F.conv2d(x, weight, None, stride, padding).shape).to(memory_format=form)
    return [gradient, x, weight, [outputs], list(stride), list(padding)]


def assert_gradients_are_right(arguments, wanted=WANTED) -> None:
    plain = ([1, 1], False, [0, 0], 1, list(wanted))
    found, expected = convolution_backward(*arguments, *plain), aten.convolution_backward(*arguments, *plain)
    assert [one is None for one in found] == [not one for one in wanted]
    for one, other in zip(found, expected, strict=True):
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", FORMATS, ids=str)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(28, 28), (7, 7), (1, 1), (3, 8)], ids=str)
def test_gradients_of_the_convolutions_in_use_are_those_of_pytorch(size, stride, form) -> None:
    for examples, channels in product((1, 5), (1, 3)):
        shape = (examples, channels, *size)
        assert_gradients_are_right(convolution(shape, (3, 3), (stride, stride), (1, 1), outputs=4, form=form))


@given(seeds, pairs, pairs, st.tuples(st.integers(0, 2), st.integers(0, 2)), st.data())
def test_gradients_of_any_plain_convolution_are_those_of_pytorch(seed, kernel, stride, padding, data) -> None:
    size = [data.draw(st.integers(max(kernel[i] - 2 * padding[i], 1), 9)) for i in range(2)]
    examples, inputs, outputs = (data.draw(st.integers(1, 3)) for _ in range(3))
    wanted = data.draw(st.tuples(*[st.booleans()] * 3).filter(any))
    arguments = convolution((examples, inputs, *size), kernel, stride, padding, seed, outputs)
    assert_gradients_are_right(arguments, wanted)


@pytest.mark.parametrize(
    ("dilation", "transposed", "groups"), [([2, 2], False, 1), ([1, 1], True, 1), ([1, 1], False, 2)]
)
def test_convolutions_that_are_not_plain_are_refused(dilation, transposed, groups) -> None:
    arguments = convolution((1, 2, 8, 8), (3, 3), (1, 1), (1, 1))
    with pytest.raises(NotImplementedError, match="only plain convolutions"):
        convolution_backward(*arguments, dilation, transposed, [0, 0], groups, WANTED)


def assert_pooling_is_right(x: torch.Tensor, kernel: tuple[int, int], stride: list[int] | None = None) -> None:
    stride = list(kernel) if stride is None else stride
    maxima, indices = F.max_pool2d(x, kernel, stride or None, return_indices=True)
    arguments = [normal(7, *maxima.shape), x, list(kernel), stride, [0, 0], [1, 1], False, indices]
    expected = aten.max_pool2d_with_indices_backward(*arguments)
    torch.testing.assert_close(max_pool2d_backward(*arguments), expected, rtol=0, atol=0)


@pytest.mark.parametrize("form", FORMATS, ids=str)
@pytest.mark.parametrize("size", [(28, 28), (7, 7), (2, 2), (3, 8)], ids=str)
def test_gradients_of_maxima_go_where_pytorch_sends_them(size, form) -> None:
    for examples in (1, 5):
        assert_pooling_is_right(normal(0, examples, 3, *size).to(memory_format=form), (2, 2))
    assert_pooling_is_right(normal(0, 2, 3, *size).to(memory_format=form), (2, 2), stride=[])


@given(seeds, pairs, st.data(), st.integers(1, 3))
def test_of_equal_elements_the_one_that_pytorch_takes_gets_the_gradient(seed, kernel, data, values) -> None:
    size = [data.draw(st.integers(kernel[i], 9)) for i in range(2)]
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(values, (2, 2, *size), generator=generator)  # flat where there is one value only
    assert_pooling_is_right(image.double(), kernel)


def test_after_a_relu_windows_of_zeros_only_are_ties() -> None:
    assert_pooling_is_right((normal(0, 4, 3, 9, 9) - 1).relu(), (2, 2))


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "ceil"),
    [
        ([1, 1], [0, 0], [1, 1], False),
        ([3, 3], [0, 0], [1, 1], False),
        ([2, 2], [1, 1], [1, 1], False),
        ([2, 2], [0, 0], [2, 2], False),
        ([2, 2], [0, 0], [1, 1], True),
    ],
)
def test_windows_that_do_not_lie_side_by_side_are_refused(stride, padding, dilation, ceil) -> None:
    x = normal(0, 1, 1, 7, 7)
    maxima, indices = F.max_pool2d(x, 2, stride, padding, dilation, ceil, return_indices=True)
    with pytest.raises(NotImplementedError, match="windows side by side"):
        max_pool2d_backward(maxima, x, [2, 2], stride, padding, dilation, ceil, indices)


def positive_definite(seed: int, size: int, condition: float, *batch: int) -> torch.Tensor:
    """Symmetric matrices [*batch, N, N] of this condition number."""
    directions = torch.linalg.qr(normal(seed, *batch, size, size)).Q
    scales = torch.logspace(0, -torch.tensor(condition).log10().item(), size, dtype=torch.float64)
    a = (directions * scales) @ directions.mT
    return (a + a.mT) / 2


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


@given(seeds, st.integers(1, 12), st.integers(1, 5), st.floats(0, 10), st.sampled_from([(), (1,), (3,), (2, 2)]))
def test_systems_are_solved_as_well_as_their_condition_allows(seed, size, columns, digits, batch) -> None:
    a, b = positive_definite(seed, size, 10**digits, *batch), normal(seed + 1, *batch, size, columns)
    found = solve_positive_definite(a, b)[0]
    expected = torch.linalg.solve(a, b)
    # Both round each of N steps, and a badly conditioned system makes as much more of that.
    assert relative_error(found, expected) <= 10 * size * EPSILON * max(10**digits, 10)


@pytest.mark.parametrize("condition", [1e2, 1e5, 1e8])
def test_single_precision_systems_are_solved_in_double_precision(condition) -> None:
    a, b = positive_definite(0, 25, condition, 4).float(), normal(1, 4, 25, 5).float()
    found = solve_positive_definite(a + 1e-8 * torch.eye(25), b)[0]
    expected = torch.linalg.solve((a + 1e-8 * torch.eye(25)).double(), b.double())
    assert found.dtype == torch.float32
    assert relative_error(found, expected) <= 1e-6


def test_a_system_of_more_unknowns_than_features_is_solved_as_its_penalty_allows() -> None:
    features, penalty = normal(0, 2, 40, 6), 1e-6
    gram = features @ features.mT + penalty * torch.eye(40)  # of rank 6 but for the penalty
    goals = normal(1, 2, 40, 3)
    condition = float(torch.linalg.cond(gram).max())
    error = relative_error(solve_positive_definite(gram, goals)[0], torch.linalg.solve(gram, goals))
    assert error <= 10 * 40 * EPSILON * condition


def test_one_right_hand_side_serves_a_whole_batch() -> None:
    a, b = positive_definite(0, 4, 10, 3), normal(1, 1, 4, 2)
    torch.testing.assert_close(solve_positive_definite(a, b)[0], torch.linalg.solve(a, b))


def test_systems_of_another_form_are_refused() -> None:
    a = positive_definite(0, 3, 10, 2)
    with pytest.raises(NotImplementedError, match="only a x = b"):
        solve_positive_definite(a, normal(1, 2, 3, 3), left=False)
    with pytest.raises(NotImplementedError, match="only a x = b"):
        solve_positive_definite(a, normal(1, 2, 3))


@given(seeds, st.lists(st.integers(1, 5), min_size=1, max_size=3), st.booleans(), st.integers(1, 4), st.data())
def test_equal_elements_stay_in_order(seed, shape, descending, values, data) -> None:
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = torch.randint(-values, values, shape, generator=torch.Generator().manual_seed(seed))
    found = stable_sort(x, stable=True, dim=dim, descending=descending)
    expected = torch.sort(x, stable=True, dim=dim, descending=descending)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("descending", [False, True])
def test_a_long_row_of_ties_stays_in_order(descending) -> None:
    x = torch.arange(1000).remainder(2).expand(3, -1)
    found = stable_sort(x, stable=True, dim=1, descending=descending)
    assert torch.equal(found[1], torch.sort(x, stable=True, dim=1, descending=descending).indices)


def test_only_integers_are_sorted() -> None:
    with pytest.raises(NotImplementedError, match="integers"):
        stable_sort(torch.tensor([0.2, 0.1]))


def test_traces_hold_none_of_the_operators_that_are_decomposed() -> None:
    def every_operator(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
        weight = weight.detach().requires_grad_()
        with torch.enable_grad():
            pooled = F.max_pool2d(F.conv2d(x, weight, None, 1, 1).relu(), 2)
            slope = torch.autograd.grad(pooled.square().sum(), weight)[0]
        rows = slope.flatten(1)
        solution = torch.linalg.solve(rows @ rows.mT + torch.eye(len(rows), dtype=rows.dtype), rows)
        return solution, (solution > 0).long().argsort(dim=1, stable=True)

    arguments = normal(0, 2, 3, 9, 9), normal(1, 4, 3, 3, 3)
    traced = make_fx(every_operator, decompositions())(*arguments)
    left = {node.target for node in traced.graph.nodes}
    assert left.isdisjoint(
        {
            aten.convolution_backward.default,
            aten.max_pool2d_with_indices_backward.default,
            aten._linalg_solve_ex.default,
            aten._linalg_check_errors.default,
            aten.sort.stable,
        }
    )
    for one, other in zip(traced(*arguments), every_operator(*arguments), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dims", [(0,), (0, 1), (-1, 1), (0, -2, 3)])
def test_dimensions_of_size_one_are_left_out(dims) -> None:
    x = normal(0, 1, 3, 1, 1)
    assert torch.equal(squeeze(x, dims), x.squeeze(dims))


def test_an_operator_that_is_not_in_the_table_is_left_to_the_exporter(monkeypatch) -> None:
    monkeypatch.setattr("innerloop_trainer.onnx_export.tracing.decompositions", dict)
    example = Example(torch.zeros(3, 1, 2, 1), ("tasks", 1, 2, 1))
    model = trace(lambda x: {"y": x.squeeze((1, 3))}, {"x": example})
    (found,) = runnable(model.SerializeToString())({"x": np.ones((5, 1, 2, 1), np.float32)}).values()
    assert found.shape == (5, 2)

"""Task-batched layers against one task at a time."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from innerloop_learner import layers
from innerloop_learner.norms import TaskBatchNorm


@pytest.mark.parametrize("form", layers.TASK_CONVOLUTIONS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "per-task"])
def test_a_convolution_over_tasks_equals_one_per_task(
    form: layers.TaskConvolution, stride: int, kernel: int, shared: bool
) -> None:
    x = torch.randn(3, 5, 2, 7, 7, dtype=torch.float64)
    weight = torch.randn(*(() if shared else (3,)), 4, 2, kernel, kernel, dtype=torch.float64)
    bias = torch.randn(*weight.shape[:-3], dtype=torch.float64)
    y = layers.conv2d(x, weight, bias, stride, form)
    for task in range(3):
        own = (weight, bias) if shared else (weight[task], bias[task])
        torch.testing.assert_close(y[task], F.conv2d(x[task], *own, stride=stride, padding=kernel // 2))
        torch.testing.assert_close(layers.max_pool2d(y)[task], F.max_pool2d(y[task], 2))
        torch.testing.assert_close(layers.mean_pool2d(y)[task], F.avg_pool2d(y[task], 2))
        torch.testing.assert_close(layers.mean_filter2d(y)[task], F.avg_pool2d(y[task], 3, stride=1, padding=1))


def test_a_linear_layer_over_tasks_equals_one_per_task() -> None:
    x, weight, bias = torch.randn(3, 5, 4), torch.randn(3, 2, 4), torch.randn(3, 2)
    y = layers.linear(x, weight, bias)
    for task in range(3):
        torch.testing.assert_close(y[task], F.linear(x[task], weight[task], bias[task]))


def test_task_batch_norm_equals_pytorchs_batch_norm_of_each_task() -> None:
    norm = TaskBatchNorm("norm", 4)
    params = {"norm.weight": torch.rand(4), "norm.bias": torch.randn(4)}
    x, mask = torch.randn(2, 6, 4, 5, 5), torch.ones(2, 6, dtype=torch.bool)
    mask[1, 4:] = False
    y, statistics = norm.apply(params, x, mask, {})
    for task, real in ((0, 6), (1, 4)):
        expected = F.batch_norm(
            x[task, :real], None, None, params["norm.weight"], params["norm.bias"], training=True, eps=1e-5
        )
        torch.testing.assert_close(y[task, :real], expected, rtol=1e-4, atol=1e-5)
    again, none = norm.apply(params, x, mask, statistics)
    assert not none
    torch.testing.assert_close(again, y)


@pytest.mark.parametrize("positions", [(), (2, 2)], ids=["vectors", "images"])
def test_task_batch_norm_and_its_moments_can_be_differentiated_twice(positions: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 3, *positions, dtype=torch.float64, generator=generator, requires_grad=True)
    weight, bias = (torch.randn(3, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(2))
    mask = torch.tensor([[True] * 4, [True] * 3 + [False]])

    def outputs(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y, statistics = TaskBatchNorm("norm", 3).apply({"norm.weight": weight, "norm.bias": bias}, x, mask, {})
        return y, *statistics.values()

    assert torch.autograd.gradcheck(outputs, (x, weight, bias))
    assert torch.autograd.gradgradcheck(outputs, (x, weight, bias))


def test_the_gradient_of_a_strided_convolution_in_bfloat16_is_right_on_a_single_pixel() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 5, 8, 1, 1, generator=generator), torch.randn(8, 8, 3, 3, generator=generator)

    def gradient() -> torch.Tensor:
        leaf = weight.clone().requires_grad_()
        return torch.autograd.grad(layers.conv2d(x, leaf, torch.zeros(8), 2).float().square().sum(), leaf)[0]

    exact = gradient()
    with torch.autocast("cpu", torch.bfloat16):
        assert float((gradient() - exact).norm() / exact.norm()) < 0.05


def test_gradients_of_strided_convolutions_of_one_pixel_leave_other_memory_alone() -> None:
    code = """
import torch
from innerloop_learner.layers import conv2d
for _ in range(40):
    x, weight = torch.randn(1, 27, 4, 8, 8), torch.randn(8, 4, 1, 1, requires_grad=True)
    torch.autograd.grad(conv2d(x, weight, torch.zeros(8), 2).sum(), weight)
    beside = [torch.empty(size) for size in range(1, 400, 7)]
"""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)

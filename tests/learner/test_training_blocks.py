"""Conv4 by blocks that can be differentiated twice, against the plain Conv4 and against finite differences."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from innerloop_learner.backbones import training_blocks
from innerloop_learner.backbones.conv4 import Conv4, Conv4Settings
from innerloop_learner.backbones.fused_blocks import Block
from innerloop_learner.backbones.fused_conv4 import FusedConv4
from innerloop_learner.tasks import Params

WEIGHTS = torch.tensor([[1.0, 0.5, 0.5, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)


def random(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def parameters(network: Conv4, *, increasing: bool) -> Params:
    """Those of two tasks; scales are all positive, or of both signs."""
    generator = torch.Generator().manual_seed(3)
    params = {name: random(generator, 2, *value.shape) for name, value in network.init(generator).items()}
    if increasing:
        params |= {name: params[name].abs() for name in params if name.startswith("norm") and "weight" in name}
    return {name: value.requires_grad_() for name, value in params.items()}


def meta_gradient(network: Conv4, params: Params, x: Tensor) -> list[Tensor]:
    """Gradients of a loss of another set's features at weights after a step, which uses the moments of the first."""
    support = network.apply(params, x, WEIGHTS)
    steps = torch.autograd.grad(support.values.sin().sum(), params.values(), create_graph=True)
    adapted = {name: value - 0.1 * step for (name, value), step in zip(params.items(), steps, strict=True)}
    statistics = network.apply(adapted, x, WEIGHTS).statistics
    loss = network.apply(adapted, x.flip(1) + 0.5, WEIGHTS, statistics).values.cos().sum()
    return list(torch.autograd.grad(loss, [*([x] if x.requires_grad else []), *params.values()]))


@pytest.mark.parametrize("of_x", [True, False])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("increasing", [True, False])
@pytest.mark.parametrize("downsample", ["max_pool", "stride"])
def test_meta_gradients_are_those_of_layers(downsample: str, increasing: bool, channels: int, of_x: bool) -> None:
    arguments = (channels, 19, 19), Conv4Settings(6, downsample)  # type: ignore[arg-type]
    params = parameters(Conv4(*arguments), increasing=increasing)
    x = random(torch.Generator().manual_seed(4), 2, 5, channels, 19, 19).requires_grad_(of_x)
    by_blocks, by_layers = (meta_gradient(kind(*arguments), params, x) for kind in (FusedConv4, Conv4))
    for one, other in zip(by_blocks, by_layers, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("increasing", [True, False])
@pytest.mark.parametrize("pool", [True, False])
def test_both_derivatives_against_finite_differences(pool: bool, increasing: bool, alike: bool) -> None:
    generator = torch.Generator().manual_seed(5)
    shares = None if alike else torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    x = random(generator, 3, 1, 5, 5).requires_grad_()
    weight, bias, scale, shift = (random(generator, *shape) for shape in ((2, 1, 3, 3), (2,), (2,), (2,)))
    tensors = [tensor.requires_grad_() for tensor in (weight, bias, scale.abs() if increasing else scale, shift)]

    def maps(x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        return training_blocks.standardising(x, shares, [Block(*tensors)], pool)

    assert gradcheck(maps, (x, *tensors))
    assert gradgradcheck(maps, (x, *tensors))


def test_tasks_with_weights_of_their_own_take_these_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    network = FusedConv4((1, 19, 19), Conv4Settings(6))
    params = parameters(network, increasing=True)
    for name in ("standardising", "affine"):
        monkeypatch.setattr(training_blocks, name, None)
        with pytest.raises(TypeError, match="not callable"):
            meta_gradient(network, params, random(torch.Generator(), 2, 5, 1, 19, 19))
        monkeypatch.undo()


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (lambda x, weight, bias: training_blocks._convolved(x, weight, bias, 2), [(2, 2, 5, 5), (3, 2, 3, 3), (3,)]),
        (lambda x: training_blocks._moments(x, None), [(3, 2, 4, 4)]),
        (training_blocks._pooled, [(2, 3, 5, 5)]),
    ],
    ids=["convolution", "moments", "pooling"],
)
def test_each_function_against_finite_differences(
    function: Callable[..., Tensor], shapes: list[tuple[int, ...]]
) -> None:
    generator = torch.Generator().manual_seed(6)
    layout = {4: torch.channels_last}
    tensors = [
        random(generator, *shape).contiguous(memory_format=layout.get(len(shape), torch.contiguous_format))
        for shape in shapes
    ]
    assert gradcheck(function, [tensor.requires_grad_() for tensor in tensors])
    assert gradgradcheck(function, tensors)

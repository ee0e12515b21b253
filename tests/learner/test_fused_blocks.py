"""Conv4 by fused blocks, one task after the other, against the plain Conv4, which goes by layers."""

from collections.abc import Iterator
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.fx.experimental.proxy_tensor import make_fx

from innerloop_learner import build_learner
from innerloop_learner.acceleration import accelerated
from innerloop_learner.backbones import fused_blocks
from innerloop_learner.backbones.backbone import Features
from innerloop_learner.backbones.conv4 import Conv4, Conv4Settings
from innerloop_learner.backbones.fused_blocks import Block
from innerloop_learner.backbones.fused_conv4 import MANY_IMAGES, FusedConv4
from innerloop_learner.norms import TaskBatchNorm
from innerloop_learner.spec import InputSpec, LearnerSpec
from innerloop_learner.tasks import Params, Support

WIDTH = 6
OWN = "conv norm"


@pytest.fixture
def calls() -> Iterator[list[str]]:
    """Names of the fused functions that were called."""
    made: list[str] = []
    with patch.multiple(
        fused_blocks,
        standardising=_noting(made, "standardising", fused_blocks.standardising),
        affine=_noting(made, "affine", fused_blocks.affine),
    ):
        yield made


def _noting(made: list[str], name: str, function):  # type: ignore[no-untyped-def]
    def noted(*arguments: object) -> object:
        made.append(name)
        return function(*arguments)

    return noted


def backbone(norm: str = "task", downsample: str = "max_pool", size: int = 19) -> FusedConv4:
    return FusedConv4((2, size, size), Conv4Settings(WIDTH, downsample, norm))  # type: ignore[arg-type]


def parameters(network: Conv4, tasks: int, own: str = "") -> Params:
    """Random ones in float64, signs of scales mixed; of each task if their names begin like one of `own`."""
    generator = torch.Generator().manual_seed(3)
    params = {}
    for name, value in network.init(generator).items():
        of_each = bool(own) and name.startswith(tuple(own.split())) and name not in network.buffers()
        shape = (tasks, *value.shape) if of_each else value.shape
        params[name] = torch.randn(shape, generator=generator, dtype=torch.float64)
        if name.endswith("variance"):
            params[name] = params[name].abs()
    return params


def inputs(tasks: int, examples: int, size: int = 19) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(tasks, examples, 2, size, size, generator=generator, dtype=torch.float64)
    return x, torch.ones(tasks, examples, dtype=torch.bool)


def by_layers(network: FusedConv4, *arguments: object) -> Features:
    """What a plain Conv4 of the same layers gives."""
    plain = Conv4.__new__(Conv4)
    vars(plain).update(vars(network))
    return plain.apply(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("downsample", ["max_pool", "stride"])
@pytest.mark.parametrize("own", ["", "conv", "norm", "conv norm"])
@pytest.mark.parametrize("tasks", [1, 3])
class TestSameAsByLayers:
    def test_statistics_of_the_support_set(self, calls: list[str], tasks: int, own: str, downsample: str) -> None:
        network = backbone(downsample=downsample)
        params, (x, mask) = parameters(network, tasks, own), inputs(tasks, MANY_IMAGES)
        with torch.no_grad():
            fused, layers = network.apply(params, x, mask), by_layers(network, params, x, mask)
        assert calls == ["standardising"] * tasks
        assert_same(fused, layers)

    @pytest.mark.parametrize("norm", ["task", "batch"])
    def test_given_statistics(self, calls: list[str], tasks: int, own: str, downsample: str, norm: str) -> None:
        network = backbone(norm, downsample)
        params, (x, mask) = parameters(network, tasks, own), inputs(tasks, MANY_IMAGES)
        with torch.no_grad():
            statistics = network.apply(params, x, mask).statistics
            calls.clear()
            fused = network.apply(params, x + 1, mask, statistics)
            layers = by_layers(network, params, x + 1, mask, statistics)
        together = norm == "batch" and not own
        assert calls == ["affine"] * (1 if together else tasks)
        assert_same(fused, layers)

    @pytest.mark.parametrize("norm", ["task", "batch"])
    def test_gradients(self, calls: list[str], tasks: int, own: str, downsample: str, norm: str) -> None:
        network = backbone(norm, downsample)
        params, (x, mask) = parameters(network, tasks, own), inputs(tasks, MANY_IMAGES)
        learned = [value.requires_grad_() for name, value in params.items() if name not in network.buffers()]
        x.requires_grad_()
        fused = network.once.apply(params, x, mask).values
        assert calls
        layers = by_layers(network, params, x, mask).values
        weights = torch.randn_like(layers)
        of_fused = torch.autograd.grad((fused * weights).sum(), [x, *learned])
        of_layers = torch.autograd.grad((layers * weights).sum(), [x, *learned])
        for one, other in zip(of_fused, of_layers, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


class TestWeightsOfExamples:
    """Padding counts nothing in statistics, and examples of large classes less than others."""

    weights = torch.tensor([[1.0, 0.5, 0.5, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)

    def test_statistics(self, calls: list[str]) -> None:
        network, (x, _) = backbone(), inputs(2, 5)
        params = parameters(network, 2, OWN)
        with torch.no_grad():
            fused, layers = network.apply(params, x, self.weights), by_layers(network, params, x, self.weights)
        assert calls == ["standardising"] * 2
        assert_same(fused, layers)

    def test_gradients(self, calls: list[str]) -> None:
        network, (x, _) = backbone(), inputs(2, 5)
        params = {name: value.requires_grad_() for name, value in parameters(network, 2, OWN).items()}
        fused = network.once.apply(params, x, self.weights).values
        assert calls
        layers = by_layers(network, params, x, self.weights).values
        for one, other in zip(
            *(torch.autograd.grad(y.sin().sum(), params.values()) for y in (fused, layers)), strict=True
        ):
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("pool", [True, False])
def test_the_gradient_against_finite_differences(pool: bool, alike: bool) -> None:
    generator = torch.Generator().manual_seed(5)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    x, shares = random(3, 2, 6, 6), None if alike else torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    tensors = [random(*shape) for inputs in (2, 3) for shape in ((3, inputs, 3, 3), (3,), (3,), (3,))]

    def maps(x: Tensor, *tensors: Tensor) -> Tensor:
        return fused_blocks.standardising(x, shares, [Block(*tensors[:4]), Block(*tensors[4:])], pool)[0]

    assert gradcheck(maps, (x, *tensors), check_undefined_grad=False)


@pytest.mark.parametrize("alike", [True, False])
def test_rounding_stays_that_of_sums_in_pairs(alike: bool) -> None:
    """Sums one by one lose ten times as much, which a steep inner loop turns into other answers."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(50, 3, 28, 28, generator=generator, dtype=torch.float64) + 1
    block = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((64, 3, 3, 3), (64,))]
    block += [torch.rand(64, generator=generator, dtype=torch.float64) + 0.5 for _ in range(2)]
    pull = torch.randn(50, 64, 14, 14, generator=generator, dtype=torch.float64)

    def results(dtype: torch.dtype) -> list[Tensor]:
        own = Block(*(tensor.to(dtype).requires_grad_() for tensor in block))
        shares = None if alike else torch.full((50,), 1 / 50, dtype=dtype)
        y, mean, variance = fused_blocks.standardising(x.to(dtype), shares, [own], pool=True)
        grads = torch.autograd.grad(y, (own.scale, own.shift), pull.to(dtype))
        return [mean, variance, *grads]

    for rounded, exact in zip(results(torch.float32), results(torch.float64), strict=True):
        assert (rounded - exact).abs().max() < 2e-6 * exact.abs().max()


def test_channels_that_do_not_vary() -> None:
    """One image of a single pixel per channel in the last block: its variance is zero."""
    network = backbone(size=16)
    params, (x, mask) = parameters(network, 1, OWN), inputs(1, 1, 16)
    x[:] = 0.0
    with torch.no_grad():
        fused, layers = network.apply(params, x, mask), by_layers(network, params, x, mask)
    assert_same(fused, layers)
    assert all((value >= 0).all() for name, value in fused.statistics.items() if name.endswith("variance"))


class TestGoesByLayers:
    """Wherever fused kernels would be wrong, or slower."""

    def test_a_few_images_of_tasks_that_share_weights(self, calls: list[str]) -> None:
        network = backbone()
        with torch.no_grad():
            network.apply(parameters(network, 2), *inputs(2, MANY_IMAGES - 1))
        assert not calls

    @pytest.mark.parametrize("norm", ["group", "none"])
    def test_norms_of_each_example(self, calls: list[str], norm: str) -> None:
        network = backbone(norm)
        with torch.no_grad():
            network.apply(parameters(network, 1, OWN), *inputs(1, MANY_IMAGES))
        assert not calls

    def test_what_may_be_differentiated_twice(self, calls: list[str]) -> None:
        network = backbone()
        network.apply(parameters(network, 1, OWN), *inputs(1, MANY_IMAGES))
        assert not calls

    def test_no_examples(self, calls: list[str]) -> None:
        network = backbone()
        with torch.no_grad():
            network.apply(parameters(network, 1, OWN), *inputs(1, 0))
        assert not calls

    def test_norms_of_third_parties(self, calls: list[str]) -> None:
        class Another(TaskBatchNorm):
            pass

        network = backbone()
        network.norms = [Another(norm.name, norm.channels) for norm in network.norms]
        with torch.no_grad():
            network.apply(parameters(network, 1, OWN), *inputs(1, MANY_IMAGES))
        assert not calls

    def test_what_is_traced(self, calls: list[str]) -> None:
        network = backbone()
        params, (x, mask) = parameters(network, 1, OWN), inputs(1, MANY_IMAGES)
        with torch.no_grad():
            make_fx(lambda *given: network.apply(*given).values, tracing_mode="fake")(params, x, mask)
        assert not calls

    @pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # PyTorch's own doing
    def test_what_is_compiled(self, calls: list[str]) -> None:
        network = backbone()
        params, (x, mask) = parameters(network, 1, OWN), inputs(1, MANY_IMAGES)
        fast = torch.compile(lambda x: network.apply(params, x, mask).values, backend="aot_eager")
        with torch.no_grad():
            values = fast(x)
        assert not calls
        with torch.no_grad():
            torch.testing.assert_close(values, network.apply(params, x, mask).values)


def test_moments_have_no_gradient_here() -> None:
    network = backbone()
    params, (x, mask) = parameters(network, 1, OWN), inputs(1, MANY_IMAGES)
    x.requires_grad_()
    mean = network.once.apply(params, x, mask).statistics["norm0.mean"]
    with pytest.raises(NotImplementedError, match="moments"):
        mean.sum().backward()


@pytest.mark.parametrize("method", ["maml", "anil", "boil", "fomaml", "meta-sgd", "reptile"])
def test_an_inner_loop_at_serving_takes_them(calls: list[str], method: str) -> None:
    spec = LearnerSpec(method, InputSpec((1, 19, 19), "float32"), max_ways=3, settings={"steps": 2})
    learner = accelerated(build_learner(spec), "cpu")
    params = learner.init(torch.Generator().manual_seed(0))
    x, y = torch.randn(2, 6, 1, 19, 19), torch.arange(6).remainder(3).expand(2, -1)
    support = Support(x, y, torch.ones(2, 6, dtype=torch.bool), torch.full((2,), 3), 3)
    with torch.no_grad():
        learner.adapt(params, support)
    assert calls


def assert_same(one: Features, other: Features) -> None:
    torch.testing.assert_close(one.values, other.values, rtol=1e-8, atol=1e-8)
    assert one.statistics.keys() == other.statistics.keys()
    for name, value in one.statistics.items():
        torch.testing.assert_close(value, other.statistics[name], rtol=1e-8, atol=1e-8)

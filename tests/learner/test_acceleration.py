"""A learner gets the twin that suits its device."""

import pytest
import torch
from by_hand import vector_case

from innerloop_learner import InputSpec, Learner, LearnerSpec, Query, Support, build_learner
from innerloop_learner.acceleration import accelerated, in_low_precision
from innerloop_learner.backbones.conv4 import Conv4
from innerloop_learner.backbones.fused_conv4 import FoldedConv4, FusedConv4
from innerloop_learner.layers import TASK_CONVOLUTIONS, TaskConvolution

SPEC = LearnerSpec("maml", InputSpec((1, 16, 16)), max_ways=3, settings={"steps": 2}, backbone_settings={"width": 6})


@pytest.mark.parametrize(
    ("device", "low_precision", "form", "kind"),
    [
        ("cpu", False, None, FusedConv4),
        ("cpu", False, "loop", FusedConv4),
        ("cpu", False, "grouped", FoldedConv4),
        ("cpu", True, None, FoldedConv4),
        ("cuda", False, "matmul", Conv4),
    ],
)
def test_a_conv4_has_a_twin_for_each_device(
    device: str, low_precision: bool, form: TaskConvolution | None, kind: type
) -> None:
    learner = build_learner(SPEC)
    twin = accelerated(learner, device, low_precision=low_precision, task_convolution=form)
    assert type(twin.backbone) is kind
    assert isinstance(twin.backbone, Conv4)
    assert twin.backbone.task_convolution == form
    assert type(learner.backbone) is Conv4
    assert type(accelerated(twin, "cuda").backbone) is Conv4


@pytest.mark.parametrize("form", TASK_CONVOLUTIONS)
@pytest.mark.parametrize("low_precision", [False, True])
def test_twins_answer_alike(form: TaskConvolution, low_precision: bool) -> None:
    learner = build_learner(SPEC)
    params = learner.init(torch.Generator().manual_seed(0))
    x = torch.randn(2, 6, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    y = torch.arange(6).remainder(3).expand(2, -1)
    support = Support(x, y, torch.ones(2, 6, dtype=torch.bool), torch.full((2,), 3), 3)
    twin = accelerated(learner, "cpu", low_precision=low_precision, task_convolution=form)

    def answers(each: Learner, dtype: torch.dtype) -> torch.Tensor:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            state = each.adapt(params, support).state
            assert each.backbone.apply(params, x, support.mask).values.dtype == torch.float32
            return each.predict(params, state, Query(x + 0.1, support.mask)).float()

    exact = answers(learner, torch.float32)
    if not low_precision:
        torch.testing.assert_close(answers(twin, torch.float32), exact, rtol=0, atol=1e-4)
        return

    def error(each: Learner) -> float:
        return float((answers(each, torch.bfloat16) - exact).square().mean().sqrt())

    # Two ways of rounding to bfloat16 are as far from each other as from the truth; which is closer depends on the CPU.
    assert error(twin) < 1.5 * error(learner)


def test_other_backbones_have_no_twins() -> None:
    learner = vector_case("maml").learner
    assert accelerated(learner, "cpu") is learner


@pytest.mark.parametrize("norm", ["task", "batch", "group"])
def test_a_backbone_in_low_precision_gives_float32_close_to_the_exact_features(norm: str) -> None:
    learner = build_learner(LearnerSpec("protonet", InputSpec((1, 16, 16)), backbone_settings={"norm": norm}))
    params = learner.init(torch.Generator().manual_seed(0))
    x, real = torch.rand(2, 6, 1, 16, 16, generator=torch.Generator().manual_seed(1)), torch.ones(2, 6)
    exact, low = (each.backbone.apply(params, x, real) for each in (learner, in_low_precision(learner, "cpu")))
    assert {low.values.dtype, *(value.dtype for value in low.statistics.values())} == {torch.float32}
    error = float((low.values - exact.values).norm() / exact.values.norm())
    assert 1e-5 < error < 0.02  # bfloat16 has 8 binary digits
    refit = in_low_precision(learner, "cpu").backbone.refit(params, x, real)
    for name, value in learner.backbone.refit(params, x, real).items():
        assert refit[name].dtype == torch.float32
        torch.testing.assert_close(refit[name], value, rtol=0.05, atol=0.02)
    assert not learner.backbone.low_precision

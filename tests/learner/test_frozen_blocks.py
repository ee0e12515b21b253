"""Blocks below the first one that adapts are computed once, which changes neither answers nor gradients."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from cases import Case

from innerloop_learner import InputSpec, LearnerSpec, Params, build_learner
from innerloop_learner.acceleration import accelerated
from innerloop_learner.backbones import build_backbone
from innerloop_learner.backbones.conv4 import Conv4
from innerloop_learner.methods.partial_maml import PartialMAML
from innerloop_learner.objectives import Stage, build_objective

STEPS = 3
NETWORK = {"width": 6, "downsample": "stride"}

DIVIDED: Mapping[str, tuple[dict[str, Any], Sequence[str], int]] = {
    "cell": (
        {
            "blocks": [
                {"width": 4, "edges": ["conv3x3", "skip", "mean3x3"]},
                {"width": 5, "downsample": "none"},
                {"width": 4, "edges": ["conv1x1"]},
            ],
            "norm": "task",
        },
        ["block2", "head"],
        2,
    ),
    "mlp": ({"widths": [6, 5, 4], "activation": "tanh", "norm": "task"}, ["block1", "head"], 1),
    "resnet12": ({"widths": [3, 4, 4, 3], "norm": "task"}, ["block2", "block3"], 2),
    "resnet18": ({"widths": [3, 4, 4, 3], "stem": "small", "norm": "task"}, ["block5", "head"], 5),
    "vit": ({"patch": 8, "width": 6, "depth": 3, "heads": 2}, ["block2", "norm"], 2),
}
"""Settings of a small network of each kind, what adapts of it, and how many blocks are frozen below that."""


def partial_case(norm: str = "task", **settings: Any) -> Case:
    given = {"steps": STEPS, "rate": 0.1, "adapts": ["block2", "head"], **settings}
    return Case(
        LearnerSpec(
            "partial-maml",
            InputSpec((1, 16, 16)),
            max_ways=4,
            backbone_settings={**NETWORK, "norm": norm},
            settings=given,
        )
    )


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How often each block was computed."""
    counted, plain = Counter[int](), Conv4._convolved

    def convolved(self: Conv4, params: Params, block: int, *rest: Any) -> Any:
        counted[block] += 1
        return plain(self, params, block, *rest)

    monkeypatch.setattr(Conv4, "_convolved", convolved)
    return counted


def gradient(case: Case, learner: PartialMAML) -> Params:
    params = {name: value.requires_grad_() for name, value in case.params().items()}
    loss = build_objective(learner)(params, case.episodes(), Stage()).loss
    values = torch.autograd.grad(loss, list(params.values()), materialize_grads=True)
    return {"loss": loss.detach(), **dict(zip(params, values, strict=True))}


def case_of(backbone: str) -> Case:
    network, adapts, _ = DIVIDED[backbone]
    plain = partial_case(adapts=adapts, rate=0.02).spec
    return Case(replace(plain, backbone=backbone, backbone_settings=network))


def assert_equal_to_the_whole_network(case: Case, frozen: int) -> None:
    learner, whole = build_learner(case.spec), build_learner(case.spec)
    assert isinstance(learner, PartialMAML)
    assert isinstance(whole, PartialMAML)
    assert learner.frozen_blocks == frozen
    whole.frozen_blocks = 0
    params, support = case.params(), case.episodes().support
    with torch.no_grad():
        state, losses, _ = accelerated(learner, "cpu").adapt(params, support)
        expected = whole.adapt(params, support)
    assert state.keys() == expected.state.keys()
    for name, value in expected.state.items():
        torch.testing.assert_close(state[name], value, rtol=1e-10, atol=1e-12, msg=name)
    torch.testing.assert_close(losses, expected.losses, rtol=1e-10, atol=1e-12)
    found = gradient(case, learner)
    for name, value in gradient(case, whole).items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("norm", ["task", "batch", "layer"])
def test_task_states_and_gradients_are_those_of_the_whole_network(norm: str) -> None:
    assert_equal_to_the_whole_network(partial_case(norm), 2)


@pytest.mark.parametrize("backbone", DIVIDED)
def test_so_are_those_of_every_backbone_that_has_blocks(backbone: str) -> None:
    assert_equal_to_the_whole_network(case_of(backbone), DIVIDED[backbone][2])


@pytest.mark.parametrize("backbone", ["conv4", *DIVIDED])
def test_both_parts_after_each_other_give_the_features_and_statistics_of_the_whole(backbone: str) -> None:
    spec = partial_case().spec if backbone == "conv4" else case_of(backbone).spec
    whole = build_backbone(spec.backbone, spec.input.shape, spec.backbone_settings)
    params = {name: value.double() for name, value in whole.init(torch.Generator().manual_seed(0)).items()}
    x, weights = torch.randn(2, 3, 1, 16, 16, dtype=torch.float64), torch.ones(2, 3, dtype=torch.float64)
    expected = whole.apply(params, x, weights)
    for block in range(1, whole.depth):
        parts = whole.divided(block)
        assert parts is not None
        lower = parts[0].apply(params, x, weights)
        upper = parts[1].apply(params, lower.values, weights)
        assert torch.equal(upper.values, expected.values)
        assert {**lower.statistics, **upper.statistics}.keys() == expected.statistics.keys()
    assert whole.divided(0) is whole.divided(whole.depth) is None


def test_frozen_blocks_are_computed_once(passes: Counter[int]) -> None:
    case = partial_case()
    case.learner.adapt(case.params(), case.episodes().support)
    assert passes == {0: 1, 1: 1, 2: STEPS + 1, 3: STEPS + 1}  # once more for the statistics that queries use


@pytest.mark.parametrize("adapts", [["head"], ["block0", "block3"], []])
def test_nothing_is_divided_where_the_first_block_adapts_or_none_does(adapts: list[str]) -> None:
    learner = build_learner(partial_case(adapts=adapts).spec)
    assert isinstance(learner, PartialMAML)
    assert learner.frozen_blocks == 0

"""Blocks below the first one that adapts are computed once, which changes neither answers nor gradients."""

from collections import Counter
from typing import Any

import pytest
import torch
from cases import Case

from innerloop_learner import InputSpec, LearnerSpec, Params, build_learner
from innerloop_learner.acceleration import accelerated
from innerloop_learner.backbones.conv4 import Conv4
from innerloop_learner.methods.partial_maml import PartialMAML
from innerloop_learner.objectives import Stage, build_objective

STEPS = 3
NETWORK = {"width": 6, "downsample": "stride"}


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


@pytest.mark.parametrize("norm", ["task", "batch", "layer"])
def test_task_states_and_gradients_are_those_of_the_whole_network(norm: str) -> None:
    case = partial_case(norm)
    learner, whole = build_learner(case.spec), build_learner(case.spec)
    assert isinstance(learner, PartialMAML)
    assert isinstance(whole, PartialMAML)
    assert learner._frozen == 2
    whole._frozen = 0
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


def test_frozen_blocks_are_computed_once(passes: Counter[int]) -> None:
    case = partial_case()
    case.learner.adapt(case.params(), case.episodes().support)
    assert passes == {0: 1, 1: 1, 2: STEPS + 1, 3: STEPS + 1}  # once more for the statistics that queries use


@pytest.mark.parametrize("adapts", [["head"], ["block0", "block3"], []])
def test_nothing_is_divided_where_the_first_block_adapts_or_none_does(adapts: list[str]) -> None:
    learner = build_learner(partial_case(adapts=adapts).spec)
    assert isinstance(learner, PartialMAML)
    assert learner._frozen == 0

"""Reptile's estimator against algorithms 1 and 2 of Nichol, Achiam and Schulman 2018 in plain PyTorch."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cases import TRAIN_CLASSES, Case
from torch import Tensor

from innerloop_learner import InputSpec, LearnerSpec, Params
from innerloop_learner.objectives import Stage
from innerloop_learner.settings import SettingsError
from innerloop_trainer.outer_loop import Estimator, build_estimator


def vectors(method: str = "reptile", weighting: str = "none", noise: str = "none", **settings: Any) -> Case:
    spec = LearnerSpec(
        method,
        InputSpec((6,)),
        max_ways=3,
        train_classes=TRAIN_CLASSES,
        backbone="mlp",
        backbone_settings={"widths": [10], "noise": noise},
        settings=settings,
        weighting=weighting,
    )
    return Case(spec)


def reptile(case: Case, **settings: Any) -> Estimator:
    return build_estimator("reptile", case.objective, settings)


def loss_of(weights: Params, x: Tensor, y: Tensor) -> Tensor:
    features = (x @ weights["linear0.weight"].T + weights["linear0.bias"]).relu()
    return F.cross_entropy(features @ weights["head.weight"].T + weights["head.bias"], y)


@pytest.mark.parametrize("tasks", [1, 3])  # the serial and the batched version
@pytest.mark.parametrize("update_rule", ["sgd", "adam"])
def test_the_gradient_points_from_the_mean_of_trained_weights(tasks: int, update_rule: str) -> None:
    case = vectors(rate=0.02, update_rule=update_rule)
    params, episodes = case.params(), case.episodes(tasks=tasks)
    found = reptile(case, train_steps=4, batch=50).estimate(params, {}, episodes, Stage()).gradients
    trained = []
    for task in range(tasks):
        weights = {name: value.detach().clone().requires_grad_() for name, value in params.items()}
        # A batch larger than the task holds all of its examples, of support and query alike.
        x = torch.cat([episodes.support.x[task], episodes.query.x[task]])
        y = torch.cat([episodes.support.y[task], episodes.targets[task]])
        leaves = list(weights.values())
        optimizer = (
            torch.optim.SGD(leaves, lr=0.02)
            if update_rule == "sgd"
            else torch.optim.Adam(leaves, lr=0.02, betas=(0.0, 0.999))
        )
        for _ in range(4):
            optimizer.zero_grad()
            loss_of(weights, x, y).backward()
            optimizer.step()
        trained.append(weights)
    assert found.keys() == params.keys()
    # Where a gradient is next to nothing, PyTorch's epsilon beside the root and ours under it differ a little.
    tolerance = 1e-9 if update_rule == "sgd" else 1e-5
    for name, gradient in found.items():
        mean = torch.stack([weights[name].detach() for weights in trained]).mean(0)
        torch.testing.assert_close(gradient, params[name] - mean, rtol=1e-6, atol=tolerance, msg=name)


@pytest.mark.parametrize("update_rule", ["learned_rates", "lstm"])
def test_rules_with_parameters_that_reptile_could_not_learn_are_refused(update_rule: str) -> None:
    with pytest.raises(SettingsError, match="take sgd or adam"):
        reptile(vectors(update_rule=update_rule))


def test_a_method_without_an_inner_loop_is_refused() -> None:
    with pytest.raises(SettingsError, match="protonet has no inner loop"):
        reptile(vectors("protonet"))


def test_weights_that_the_inner_loop_leaves_alone_stay_as_they_are() -> None:
    case = vectors("anil")
    assert reptile(case).estimate(case.params(), {}, case.episodes(), Stage()).gradients.keys() == {
        "head.weight",
        "head.bias",
    }


def test_minibatches_go_through_the_examples_in_another_order_each_outer_step() -> None:
    case = vectors()
    params, episodes, estimator = case.params(), case.episodes(), reptile(case, train_steps=4, batch=4)
    once, again, other = (
        estimator.estimate(params, {}, episodes, Stage(seed=seed)).gradients["linear0.weight"] for seed in (1, 1, 2)
    )
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


@pytest.mark.parametrize("setting", [{"weighting": "leave_one_out"}, {"noise": "meta_dropout"}], ids=str)
def test_a_weighting_and_noise_which_it_would_leave_as_they_are_are_refused(setting: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="it learns neither weights of examples nor noise; leave them out"):
        reptile(vectors("maml", **setting))


def test_a_support_policy_which_it_would_not_train_with_is_refused() -> None:
    spec = replace(vectors("maml").spec, input=InputSpec((1, 8, 8)), support_policy="fixed")
    with pytest.raises(SettingsError, match="it can't learn with copies of them; leave the support policy out"):
        reptile(Case(spec))


def test_a_method_that_learns_nothing_keeps_its_parameters() -> None:
    case = vectors("scratch")
    estimate = build_estimator("nothing", case.objective, {}).estimate(case.params(), {}, case.episodes(), Stage())
    assert (estimate.gradients, estimate.buffers) == ({}, {})
    assert estimate.loss > 0

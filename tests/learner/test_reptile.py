"""Reptile against algorithms 1 and 2 of Nichol, Achiam and Schulman 2018 in plain PyTorch."""

import pytest
import torch
import torch.nn.functional as F
from by_hand import features, vector_case
from torch import Tensor

from innerloop_learner import Params
from innerloop_learner.learner import Stage
from innerloop_learner.settings import SettingsError


def loss_of(weights: Params, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(features(weights, x) @ weights["head.weight"].T + weights["head.bias"], y)


@pytest.mark.parametrize("tasks", [1, 3])  # the serial and the batched version
@pytest.mark.parametrize("update_rule", ["sgd", "adam"])
def test_the_outer_gradient_points_from_the_mean_of_trained_weights(tasks: int, update_rule: str) -> None:
    case = vector_case("reptile", train_steps=4, batch=50, rate=0.02, update_rule=update_rule)
    params, episodes = case.params(), case.episodes(tasks=tasks)
    learned = {name: value.requires_grad_() for name, value in params.items()}
    loss = case.learner.objective(learned, episodes, Stage()).loss
    found = dict(zip(learned, torch.autograd.grad(loss, list(learned.values())), strict=True))
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
    # Where a gradient is next to nothing, PyTorch's epsilon beside the root and ours under it differ a little.
    tolerance = 1e-9 if update_rule == "sgd" else 1e-5
    for name, gradient in found.items():
        mean = torch.stack([weights[name].detach() for weights in trained]).mean(0)
        torch.testing.assert_close(gradient, params[name].detach() - mean, rtol=1e-6, atol=tolerance, msg=name)


@pytest.mark.parametrize("update_rule", ["learned_rates", "lstm"])
def test_rules_with_parameters_that_reptile_could_not_learn_are_refused(update_rule: str) -> None:
    with pytest.raises(SettingsError, match="take sgd or adam"):
        _ = vector_case("reptile", update_rule=update_rule).learner


def test_minibatches_go_through_the_examples_in_another_order_each_outer_step() -> None:
    case = vector_case("reptile", train_steps=4, batch=4)
    params, episodes = case.params(), case.episodes()

    def gradient(seed: int) -> Tensor:
        weight = params["linear0.weight"].detach().requires_grad_()
        loss = case.learner.objective({**params, "linear0.weight": weight}, episodes, Stage(seed=seed)).loss
        return torch.autograd.grad(loss, weight)[0]

    assert torch.equal(gradient(1), gradient(1))
    assert not torch.equal(gradient(1), gradient(2))

"""Promises that every registered update rule keeps."""

from dataclasses import replace

import pytest
import torch

from innerloop_learner import Params
from innerloop_learner.update_rules import UpdateRule, update_rules
from innerloop_learner.update_rules.update_rule import Step

TASKS, STEPS = 3, 20

each_rule = pytest.mark.parametrize("name", list(update_rules))


def make_rule(name: str) -> UpdateRule:
    return update_rules[name](rate=0.1)


def initial() -> Params:
    generator = torch.Generator().manual_seed(0)
    return {"matrix": torch.randn(4, 3, generator=generator), "vector": torch.randn(5, generator=generator)}


def distances(weights: Params) -> torch.Tensor:
    """The quadratic to be minimised, each task's with its own optimum, [T]."""
    targets = torch.arange(TASKS, dtype=torch.float32)
    return sum((w - targets.view(-1, *[1] * (w.dim() - 1))).square().flatten(1).sum(1) / 2 for w in weights.values())


def step_at(weights: Params, index: int) -> Step:
    tracked = {name: value.detach().requires_grad_() for name, value in weights.items()}
    losses = distances(tracked)
    gradients = torch.autograd.grad(losses.sum(), list(tracked.values()))
    detached = {name: value.detach() for name, value in weights.items()}
    return Step(index, detached, dict(zip(weights, gradients, strict=True)), losses.detach())


def start(name: str) -> tuple[UpdateRule, Params, Params, Params]:
    rule, shared = make_rule(name), initial()
    params = {**shared, **rule.init(torch.Generator().manual_seed(0), shared)}
    weights = {n: w.expand(TASKS, *w.shape).clone() for n, w in shared.items()}
    return rule, params, weights, rule.start(params, weights)


def copied(tensors: Params) -> Params:
    return {name: value.clone() for name, value in tensors.items()}


def assert_equal(a: Params, b: Params) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(value, b[name]) for name, value in a.items())


@each_rule
def test_a_step_changes_none_of_its_inputs_and_is_repeatable(name: str) -> None:
    rule, params, weights, state = start(name)
    step = step_at(weights, 0)
    before = [copied(tensors) for tensors in (params, state, step.weights, step.gradients)]
    first, second = rule.update(params, state, step), rule.update(params, state, step)
    for tensors, kept in zip((params, state, step.weights, step.gradients), before, strict=True):
        assert_equal(tensors, kept)
    assert_equal(first.weights, second.weights)
    assert_equal(first.state, second.state)


@each_rule
def test_weights_and_state_keep_their_names_shapes_and_types(name: str) -> None:
    rule, params, weights, state = start(name)
    updated = rule.update(params, state, step_at(weights, 0))
    for after, before in ((updated.weights, weights), (updated.state, state)):
        assert {n: (v.shape, v.dtype) for n, v in after.items()} == {n: (v.shape, v.dtype) for n, v in before.items()}
        assert all(value.shape[0] == TASKS for value in after.values())


@pytest.mark.parametrize("name", [name for name in update_rules if name != "lstm"])
def test_steps_go_down_a_quadratic_where_the_rule_needs_no_training(name: str) -> None:
    rule, params, weights, state = start(name)
    before = distances(weights)
    for index in range(STEPS):
        weights, state = rule.update(params, state, step_at(weights, index))
    assert (distances(weights) < 0.9 * before).all()


@each_rule
def test_each_task_goes_its_own_way(name: str) -> None:
    rule, params, weights, state = start(name)
    step = step_at(weights, 0)
    together = rule.update(params, state, step).weights
    for task in range(TASKS):
        one = slice(task, task + 1)
        alone = Step(
            0, {n: w[one] for n, w in weights.items()}, {n: g[one] for n, g in step.gradients.items()}, step.losses[one]
        )
        own = rule.update(params, {n: s[one] for n, s in state.items()}, alone).weights
        for weight_name, weight in own.items():
            torch.testing.assert_close(weight, together[weight_name][one])


@each_rule
def test_outer_gradients_flow_through_a_step_to_the_weights(name: str) -> None:
    rule, params, weights, state = start(name)
    step = step_at(weights, 0)
    tracked = {n: w.clone().requires_grad_() for n, w in weights.items()}
    updated = rule.update(params, state, replace(step, weights=tracked))
    total = sum(weight.sum() for weight in updated.weights.values())
    assert all(gradient.abs().sum() > 0 for gradient in torch.autograd.grad(total, list(tracked.values())))


def test_sgd_steps_against_the_gradient() -> None:
    rule, params, weights, state = start("sgd")
    step = step_at(weights, 0)
    updated = rule.update(params, state, step).weights
    for name, weight in updated.items():
        torch.testing.assert_close(weight, weights[name] - 0.1 * step.gradients[name])


@pytest.mark.parametrize("rate", [0.0, -0.1, float("nan"), float("inf")])
def test_sgd_refuses_a_rate_that_is_no_rate(rate: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        update_rules["sgd"](rate=rate)

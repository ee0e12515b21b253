"""The inner loop: a few gradient steps on each task's own weights, for a batch of tasks."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from innerloop_learner.tasks import Params
from innerloop_learner.update_rules import UpdateRule
from innerloop_learner.update_rules.update_rule import Step


class InnerLoopResult(NamedTuple):
    """What the inner loop leaves.

    Attributes:
        weights: adapted weights, [T, ...] each.
        losses: support loss before each step [T, steps].
    """

    weights: Params
    losses: Tensor


def inner_loop(
    loss: Callable[[Params], Tensor],
    initial: Params,
    rule: UpdateRule,
    params: Params,
    steps: int,
    tasks: int,
    order: Literal[1, 2],
) -> InnerLoopResult:
    """Adapt `initial` weights to T tasks at once.

    Each task's loss depends on its own weights only, so the gradient of the sum of losses is each task's own gradient.
    Under `torch.no_grad` nothing of a step outlives it; otherwise the result is differentiable with respect to
    `initial` and `params`, through the gradients themselves (order 2) or taking them as constants (order 1).

    Args:
        loss: from weights [T, ...] to the support loss of each task [T].
        initial: shared weights to start from, without task dimension.
        rule: how a step changes weights.
        params: meta-learned parameters, for the rule.
        steps: number of steps.
        tasks: T.
        order: of the derivative in training.
    """
    differentiable = torch.is_grad_enabled()
    weights = {name: weight.expand(tasks, *weight.shape) for name, weight in initial.items()}
    state = rule.start(params, weights)
    history = []
    with torch.enable_grad():
        for index in range(steps):
            weights = {name: _tracked(weight, differentiable) for name, weight in weights.items()}
            losses = loss(weights)
            gradients = torch.autograd.grad(
                losses.sum(), list(weights.values()), create_graph=differentiable and order == 2
            )
            step = Step(index, weights, dict(zip(weights, gradients, strict=True)), losses.detach())
            with torch.set_grad_enabled(differentiable):
                weights, state = rule.update(params, state, step)
            history.append(losses.detach())
    first = next(iter(weights.values()))
    return InnerLoopResult(weights, torch.stack(history, dim=1) if history else first.new_zeros(tasks, 0))


def _tracked(weight: Tensor, differentiable: bool) -> Tensor:
    """The weight as something gradients can be taken of, cut off from its past unless that is to be differentiated."""
    return weight if differentiable and weight.requires_grad else weight.detach().requires_grad_()

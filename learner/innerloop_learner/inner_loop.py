"""The inner loop: a few gradient steps on each task's own weights, for a batch of tasks."""

from collections.abc import Iterator
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from innerloop_learner.layers import channels_last
from innerloop_learner.loops import Index, repeat
from innerloop_learner.population import in_population
from innerloop_learner.recomputation import recomputed
from innerloop_learner.state import WEIGHTS, prefixed, section
from innerloop_learner.tasks import Params
from innerloop_learner.update_rules import UpdateRule
from innerloop_learner.update_rules.update_rule import Step

RULE = "rule."
"""Prefix of the names of the update rule's state, among the tensors that a step hands to the next."""


class Loss(Protocol):
    """The support loss of an inner loop."""

    def __call__(self, step: Index, weights: Params, twice: bool, /) -> Tensor:
        """The loss of each task [T].

        Args:
            step: number of steps taken before.
            weights: weights of each task by name, [T, ...] each.
            twice: whether the gradient of the loss will be differentiated again.
        """


class InnerStep(NamedTuple):
    """The result of one step.

    Attributes:
        weights: weights after the step, [T, ...] each.
        losses: support loss before the step [T], without gradients.
    """

    weights: Params
    losses: Tensor


class InnerLoopResult(NamedTuple):
    """The result of the inner loop.

    Attributes:
        weights: adapted weights, [T, ...] each.
        losses: support loss before each step [T, steps].
    """

    weights: Params
    losses: Tensor


def inner_loop(
    loss: Loss,
    initial: Params,
    rule: UpdateRule,
    params: Params,
    steps: int,
    tasks: int,
    order: Literal[1, 2],
    recompute: bool = False,
) -> InnerLoopResult:
    """Adapt `initial` weights to T tasks at once; the arguments are those of `unroll`.

    Example:
        One step of gradient descent on (w - goal)^2 for two tasks, whose goals are 1 and 3:

        >>> from innerloop_learner.update_rules.sgd import SGD
        >>> goals = torch.tensor([1.0, 3.0])
        >>> def loss(step, weights, twice):
        ...     return (weights["w"] - goals).square()
        >>> result = inner_loop(loss, {"w": torch.tensor(0.0)}, SGD(rate=0.25), {}, steps=1, tasks=2, order=1)
        >>> result.weights["w"].tolist(), result.losses.tolist()
        ([0.5, 1.5], [[1.0], [9.0]])
    """
    take = recomputed(take_step, wanted=recompute)

    def step(index: Index, carried: Params) -> tuple[Params, Params]:
        weights, state = section(carried, WEIGHTS), section(carried, RULE)
        weights, losses, state = take(loss, weights, rule, params, state, index, order)
        return {**prefixed(WEIGHTS, weights), **prefixed(RULE, state)}, {"losses": losses}

    weights = spread(initial, tasks)
    start = {**prefixed(WEIGHTS, weights), **prefixed(RULE, rule.start(params, weights))}
    carried, left = repeat(step, start, steps)
    first = next(iter(weights.values()))
    losses = left["losses"].T if left else first.new_zeros(tasks, 0)
    return InnerLoopResult(section(carried, WEIGHTS), losses)


def unroll(
    loss: Loss,
    initial: Params,
    rule: UpdateRule,
    params: Params,
    steps: int,
    tasks: int,
    order: Literal[1, 2],
    truncate: int = 0,
    recompute: bool = False,
) -> Iterator[InnerStep]:
    """Take the steps of the inner loop, and yield the result of each.

    Each task's loss depends on its own weights only, so the gradient of the sum of losses is each task's own gradient.
    Under `torch.no_grad` no graph of a step is kept. Otherwise the results are differentiable with respect to `initial`
    and `params`: with order 2 through the inner gradients, with order 1 with these taken as constants.

    Args:
        loss: function that gives the support loss of each task.
        initial: shared weights to start from, without task dimension.
        rule: update rule, which turns gradients into new weights.
        params: meta-learned parameters, the rule's own among them.
        steps: number of steps.
        tasks: number of tasks T.
        order: order of derivatives that training takes through the steps: 1 or 2.
        truncate: number of steps after which weights and the rule's state are detached from their past, again and again
            (truncated back-propagation through time); zero for never.
        recompute: whether each step's graph is dropped, and computed again when the outer gradient reaches it, so that
            memory grows with steps by their weights alone.
    """
    take = recomputed(take_step, wanted=recompute)
    weights = spread(initial, tasks)
    state = rule.start(params, weights)
    for index in range(steps):
        if truncate and index and index % truncate == 0:
            weights = {name: weight.detach() for name, weight in weights.items()}
            state = {name: value.detach() for name, value in state.items()}
        weights, losses, state = take(loss, weights, rule, params, state, index, order)
        yield InnerStep(weights, losses)


def spread(initial: Params, tasks: int) -> Params:
    """Repeat shared weights for each task, [T, ...]."""
    # Weights of convolutions are laid out once, which steps keep, and not in every pass.
    laid = {name: channels_last(weight) if weight.dim() == 4 else weight for name, weight in initial.items()}
    return {name: weight.expand(tasks, *weight.shape) for name, weight in laid.items()}


def take_step(
    loss: Loss, weights: Params, rule: UpdateRule, params: Params, state: Params, index: Index, order: Literal[1, 2]
) -> tuple[Params, Tensor, Params]:
    """Take one step of the inner loop; see `unroll` for the arguments.

    Returns:
        new weights [T, ...], the losses [T] of the old ones, and the rule's new state.
    """
    if in_population():
        # Inside of vmap only torch.func differentiates; nothing is differentiated through the steps there.
        def summed(weights: Params) -> tuple[Tensor, Tensor]:
            losses = loss(index, weights, False)
            return losses.sum(), losses

        gradients, losses = torch.func.grad(summed, has_aux=True)(weights)
    else:
        differentiable = torch.is_grad_enabled()
        twice = differentiable and order == 2
        with torch.enable_grad():
            weights = {name: _tracked(weight, differentiable) for name, weight in weights.items()}
            losses = loss(index, weights, twice)
            found = torch.autograd.grad(losses.sum(), list(weights.values()), create_graph=twice)
        gradients = dict(zip(weights, found, strict=True))
    step = Step(index, weights, gradients, losses.detach())
    updated, state = rule.update(params, state, step)
    return updated, losses.detach(), state


def _tracked(weight: Tensor, differentiable: bool) -> Tensor:
    """A weight that gradients can be taken of; it is detached from its past unless that is to be differentiated.

    It is a new view, so that its gradient does not count other uses of the same tensor.
    """
    return weight.view_as(weight) if differentiable and weight.requires_grad else weight.detach().requires_grad_()

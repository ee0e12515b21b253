"""Learned optimizers, against loops over tasks and weights in plain PyTorch."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from by_hand import features, vector_case
from cases import Case
from torch import Tensor

from innerloop_learner import Episodes, Params
from innerloop_learner.objectives import Stage
from innerloop_learner.settings import SettingsError

STEPS = 4
WEIGHTS = ("linear0.weight", "linear0.bias", "linear1.weight", "linear1.bias", "head.weight", "head.bias")


def logits(weights: Params, x: Tensor) -> Tensor:
    return features(weights, x) @ weights["head.weight"].T + weights["head.bias"]


def lstm(params: Params, name: str, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """A cell by its equations, differentiable with respect to its parameters."""
    gates = torch.cat([x, hidden], 1) @ params[f"{name}.weight"].T + params[f"{name}.bias"]
    size = hidden.shape[1]
    write, keep, read = (gates[:, i * size : (i + 1) * size].sigmoid() for i in range(3))
    cell = keep * cell + write * gates[:, 3 * size :].tanh()
    return read * cell.tanh(), cell


def preprocessed(value: Tensor) -> list[float]:
    """Appendix A of Andrychowicz et al. 2016, for one number."""
    v = value.item()
    return [math.log(abs(v)) / 10, math.copysign(1, v)] if abs(v) >= math.exp(-10) else [-1, math.exp(10) * v]


def rows(values: Tensor) -> Tensor:
    return torch.tensor([preprocessed(value) for value in values.flatten()], dtype=torch.float64)


def gradients(weights: Params, x: Tensor, y: Tensor) -> tuple[Params, Tensor]:
    """As constants."""
    leaves = {name: value.detach().requires_grad_() for name, value in weights.items()}
    loss = F.cross_entropy(logits(leaves, x), y)
    values = torch.autograd.grad(loss, list(leaves.values()))
    return dict(zip(leaves, values, strict=True)), loss.detach()


def by_gradient_descent_by(params: Params, x: Tensor, y: Tensor) -> list[Params]:
    """Weights after every step of the learned optimizer."""
    weights = {name: params[name] for name in WEIGHTS}
    state = {
        name: [torch.zeros(value.numel(), 6, dtype=torch.float64) for _ in range(4)] for name, value in weights.items()
    }
    trajectory = []
    for _ in range(STEPS):
        constants, _ = gradients(weights, x, y)
        moved = {}
        for name, weight in weights.items():
            h0, c0, h1, c1 = state[name]
            h0, c0 = lstm(params, "rule.lstm0", rows(constants[name]), h0, c0)
            h1, c1 = lstm(params, "rule.lstm1", h0, h1, c1)
            state[name] = [h0, c0, h1, c1]
            moved[name] = weight + 0.1 * (h1 @ params["rule.output"]).view_as(weight)
        weights = moved
        trajectory.append(weights)
    return trajectory


def by_gates(params: Params, x: Tensor, y: Tensor) -> list[Params]:
    """Weights after every step of Meta-Learner LSTM."""
    weights = {name: params[name] for name in WEIGHTS}
    state = {}
    for name, weight in weights.items():
        zeros = torch.zeros(weight.numel(), 6, dtype=torch.float64)
        write, keep = (params[f"rule.{gate}.bias"].sigmoid().expand(weight.numel()) for gate in ("input", "forget"))
        state[name] = [zeros, zeros, write, keep]
    trajectory = []
    for _ in range(STEPS):
        constants, loss = gradients(weights, x, y)
        moved = {}
        for name, weight in weights.items():
            hidden, cell, write, keep = state[name]
            seen = torch.cat([rows(constants[name]), rows(loss).expand(weight.numel(), 2)], 1)
            hidden, cell = lstm(params, "rule.lstm", seen, hidden, cell)
            flat = weight.flatten()

            def gate(kind: str, before: Tensor, hidden: Tensor = hidden, flat: Tensor = flat) -> Tensor:
                looked_at = torch.cat([hidden, flat[:, None], before[:, None]], 1)
                return (looked_at @ params[f"rule.{kind}.weight"] + params[f"rule.{kind}.bias"]).sigmoid()

            write, keep = gate("input", write), gate("forget", keep)
            state[name] = [hidden, cell, write, keep]
            moved[name] = (keep * flat - write * constants[name].flatten()).view_as(weight)
        weights = moved
        trajectory.append(weights)
    return trajectory


LOOPS: dict[str, Callable[[Params, Tensor, Tensor], list[Params]]] = {
    "lstm-optimizer": by_gradient_descent_by,
    "meta-lstm": by_gates,
}


def outer_loss(method: str, params: Params, episodes: Episodes) -> Tensor:
    losses = []
    for task in range(episodes.support.tasks):
        trajectory = LOOPS[method](params, episodes.support.x[task], episodes.support.y[task])
        counted = trajectory if method == "lstm-optimizer" else trajectory[-1:]
        x, y = episodes.query.x[task], episodes.targets[task]
        losses += [F.cross_entropy(logits(weights, x), y) for weights in counted]
    return torch.stack(losses).mean()


def learned_case(method: str, **settings: object) -> Case:
    return vector_case(method, steps=STEPS, hidden=6, rate=0.1, **settings)


@pytest.mark.parametrize("method", list(LOOPS))
def test_outer_loss_and_gradient_equal_a_loop_over_tasks(method: str) -> None:
    case = learned_case(method)
    params, episodes = case.params(), case.episodes(tasks=2)
    learned = {name: value.requires_grad_() for name, value in params.items()}
    ours = case.objective(learned, episodes, Stage()).loss
    theirs = outer_loss(method, learned, episodes)
    torch.testing.assert_close(ours, theirs)
    pairs = (torch.autograd.grad(loss, list(learned.values()), materialize_grads=True) for loss in (ours, theirs))
    for name, a, b in zip(learned, *pairs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-10, msg=name)


def test_losses_along_the_way_count_as_they_are_weighed() -> None:
    weighed = learned_case("lstm-optimizer", step_weights=[0.0, 1.0, 0.0, 3.0])
    params, episodes = weighed.params(), weighed.episodes(tasks=1)
    trajectory = by_gradient_descent_by(params, episodes.support.x[0], episodes.support.y[0])
    second, last = (
        F.cross_entropy(logits(trajectory[step], episodes.query.x[0]), episodes.targets[0]) for step in (1, 3)
    )
    loss = weighed.objective(params, episodes, Stage()).loss
    torch.testing.assert_close(loss, (second + 3 * last) / 4)


@pytest.mark.parametrize("weights", [[1.0], [0.0] * STEPS, [-1.0, 1.0, 1.0, 1.0]])
def test_weights_that_fit_no_steps_are_refused(weights: list[float]) -> None:
    with pytest.raises(SettingsError, match="step_weights must be 4 numbers"):
        _ = learned_case("lstm-optimizer", step_weights=weights).objective


def rule_gradient(case: Case, params: Params, episodes: Episodes) -> Tensor:
    learned = {name: value.detach().requires_grad_() for name, value in params.items()}
    loss = case.objective(learned, episodes, Stage()).loss
    return torch.autograd.grad(loss, learned["rule.lstm0.weight"])[0]


def test_truncation_cuts_the_gradient_and_not_the_loss() -> None:
    whole, cut = learned_case("lstm-optimizer"), learned_case("lstm-optimizer", truncate=2)
    params, episodes = whole.params(), whole.episodes()
    losses = [case.objective(params, episodes, Stage()).loss.item() for case in (whole, cut)]
    assert losses[0] == losses[1]
    through_all, through_two = (rule_gradient(case, params, episodes) for case in (whole, cut))
    assert (through_all - through_two).abs().max() > 1e-3 * through_all.abs().max()
    # Cut after as many steps as there are, nothing is cut.
    long = learned_case("lstm-optimizer", truncate=STEPS)
    torch.testing.assert_close(rule_gradient(long, params, episodes), through_all)


def test_an_optimizer_on_its_own_starts_from_weights_drawn_in_every_outer_step() -> None:
    case = learned_case("lstm-optimizer", initialisation="random")
    params, episodes = case.params(), case.episodes()
    learned = {name: value.requires_grad_() for name, value in params.items()}

    def loss(seed: int) -> Tensor:
        return case.objective(learned, episodes, Stage(seed=seed)).loss

    assert loss(1).item() == loss(1).item()
    assert loss(1).item() != loss(2).item()
    found = torch.autograd.grad(loss(1), list(learned.values()), materialize_grads=True)
    moved = {name for name, gradient in zip(learned, found, strict=True) if gradient.abs().max() > 0}
    assert moved == {name for name in params if name.startswith("rule.")}

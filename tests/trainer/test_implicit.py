"""The estimator `implicit` against a problem that can be solved by hand, and against backpropagation."""

import gc
from dataclasses import replace
from typing import Any

import pytest
import torch
from cases import Case, wave_case
from torch import Tensor

from innerloop_learner import Episodes, Params
from innerloop_learner.objectives import Stage
from innerloop_learner.settings import SettingsError
from innerloop_trainer.outer_loop import Estimate, build_estimator

PULL = 0.7


def waves(widths: list[int], method: str = "imaml", activation: str = "tanh", **settings: Any) -> Case:
    return wave_case(method, widths, settings, activation=activation)


def estimate(case: Case, name: str = "implicit", **settings: Any) -> Estimate:
    return build_estimator(name, case.objective, settings).estimate(case.params(), {}, case.episodes(), Stage())


def by_hand(params: Params, episodes: Episodes) -> Tensor:
    """The meta-gradient of a line [slope, height], whose inner problem is quadratic: mean over tasks of l H^-1 q'."""
    start = torch.cat([params["head.weight"].flatten(), params["head.bias"]])
    gradients = []
    for task in range(episodes.support.tasks):
        x, query = (
            torch.cat([each, torch.ones_like(each)], 1) for each in (episodes.support.x[task], episodes.query.x[task])
        )
        y, targets = episodes.support.y[task].flatten(), episodes.targets[task].flatten()
        hessian = 2 / len(x) * x.T @ x + PULL * torch.eye(2).to(x)
        minimum = torch.linalg.solve(hessian, 2 / len(x) * x.T @ y + PULL * start)
        slope = 2 / len(query) * query.T @ (query @ minimum - targets)
        gradients.append(PULL * torch.linalg.solve(hessian, slope))
    return torch.stack(gradients).mean(0)


def flat(gradients: Params) -> Tensor:
    return torch.cat([gradients[name].flatten() for name in sorted(gradients)])


def test_the_gradient_of_a_quadratic_problem_is_the_one_solved_by_hand() -> None:
    line = waves([], steps=300, max_steps=300, rate=0.2, proximal=PULL)
    found = estimate(line, conjugate_steps=2).gradients
    expected = by_hand(line.params(), line.episodes())
    torch.testing.assert_close(
        torch.cat([found["head.weight"].flatten(), found["head.bias"]]), expected, rtol=1e-10, atol=1e-12
    )


def test_the_gradient_is_what_backpropagation_through_many_steps_tends_to() -> None:
    case = waves([5], steps=400, max_steps=400, rate=0.3, proximal=PULL)
    found, expected = (
        flat(estimate(case, name, **settings).gradients)
        for name, settings in (("implicit", {"conjugate_steps": 16, "least_curvature": 0.01}), ("backpropagation", {}))
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_parameters_that_only_the_queries_see_get_their_gradient_too() -> None:
    # Statistics of the support set, and factors of norms, come in twice: in the minimum and in the answers.
    spec = replace(waves([5]).spec, backbone_settings={"widths": [5], "norm": "task", "activation": "tanh"})
    case = Case(replace(spec, settings={"steps": 300, "max_steps": 300, "rate": 0.2, "proximal": 2.0}))
    found, expected = (
        flat(estimate(case, name, **settings).gradients)
        for name, settings in (("implicit", {"conjugate_steps": 30, "least_curvature": 0.01}), ("backpropagation", {}))
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_memory_does_not_grow_with_inner_steps() -> None:
    peaks = {
        (name, steps): peak(waves([64, 64], steps=steps), name)
        for name in ("implicit", "backpropagation")
        for steps in (1, 16)
    }
    assert peaks["implicit", 16] < 1.1 * peaks["implicit", 1]
    assert peaks["backpropagation", 16] > 3 * peaks["backpropagation", 1]


class Kept:
    """A tensor that a graph of gradients keeps, counted among the bytes that graphs hold as long as it is there."""

    held = most = 0

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        Kept.held += tensor.nbytes
        Kept.most = max(Kept.most, Kept.held)

    def __del__(self) -> None:
        Kept.held -= self.tensor.nbytes


def peak(case: Case, name: str) -> int:
    """Most bytes that graphs held at any time of an estimate."""
    gc.collect()
    Kept.held = Kept.most = 0
    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        estimate(case, name)
    return Kept.most


def test_far_from_a_minimum_the_gradient_is_no_longer_than_that_of_first_order() -> None:
    # After one small step of a steep loss, H is not positive definite, and its inverse would be anything.
    case = waves([20, 20], activation="relu", steps=1, rate=0.001, proximal=0.01)
    params, episodes = case.params(), case.episodes()
    steep = replace(episodes, targets=100 * episodes.targets, support=replace(episodes.support, y=-episodes.support.y))
    exact = build_estimator("implicit", case.objective, {"conjugate_steps": 50})
    found = exact.estimate(params, {}, steep, Stage()).gradients
    learned = {name: value.requires_grad_() for name, value in params.items()}
    loss = case.objective(learned, steep, Stage()).loss
    first = torch.cat([each.flatten() for each in torch.autograd.grad(loss, list(learned.values()))])
    assert flat(found).norm() < 2 * first.norm()


@pytest.mark.parametrize("method", ["maml", "anil"])
def test_an_inner_loss_without_a_pull_is_refused(method: str) -> None:
    with pytest.raises(SettingsError, match=f"implicit: {method} does not adapt to a minimum .* train imaml"):
        estimate(waves([5], method))

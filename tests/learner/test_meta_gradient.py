"""The outer gradient against finite differences and against plain PyTorch, in float64."""

import pytest
import torch
import torch.nn.functional as F
from by_hand import conv4_by_hand
from cases import CASES, Case

from innerloop_learner import Episodes, InputSpec, LearnerSpec, Params, build_learner
from innerloop_learner.objectives import Stage, build_objective

STEPS = (1e-7, 1e-8)
"""Small enough that hardly a ReLU or maximum changes sides, large enough for float64; one of them must do."""

OTHERWISE = {"fomaml", "lstm-optimizer", "meta-lstm", "meta-networks"}
"""Methods that take some gradients as constants, on purpose."""

SMOOTH = [case for case in CASES if case.spec.method not in OTHERWISE]


def gradient(case: Case, params: Params, episodes: Episodes) -> Params:
    learned = {n: v.detach().requires_grad_() for n, v in params.items() if n not in case.learner.buffers()}
    loss = case.objective({**params, **learned}, episodes, Stage()).loss
    values = torch.autograd.grad(loss, list(learned.values()), materialize_grads=True)
    return dict(zip(learned, values, strict=True))


@pytest.mark.parametrize("case", SMOOTH, ids=lambda case: case.name)
def test_the_outer_gradient_equals_finite_differences(case: Case) -> None:
    params, episodes = case.params(), case.episodes(tasks=2)
    exact = gradient(case, params, episodes)
    generator = torch.Generator().manual_seed(7)
    for _ in range(3):
        direction = {name: torch.randn(g.shape, generator=generator, dtype=g.dtype) for name, g in exact.items()}

        def loss(size: float, direction: Params = direction) -> float:
            moved = {
                name: value + size * direction[name] if name in direction else value for name, value in params.items()
            }
            with torch.no_grad():
                return case.objective(moved, episodes, Stage()).loss.item()

        measured = [(loss(step) - loss(-step)) / (2 * step) for step in STEPS]
        expected = sum((exact[name] * direction[name]).sum().item() for name in exact)
        assert any(each == pytest.approx(expected, rel=1e-5, abs=1e-8) for each in measured), (measured, expected)


@pytest.mark.parametrize("order", [1, 2])
def test_maml_equals_a_loop_over_tasks_in_plain_pytorch(order: int) -> None:
    spec = LearnerSpec(
        method="maml" if order == 2 else "fomaml",
        input=InputSpec((1, 16, 16)),
        max_ways=3,
        backbone_settings={"width": 6},
        settings={"steps": 3, "rate": 0.1},
    )
    case = Case(spec)
    params, episodes = case.params(), case.episodes()
    learned = {name: value.requires_grad_() for name, value in params.items()}
    losses = []
    for task in range(3):
        weights = dict(learned)
        x, y = episodes.support.x[task], episodes.support.y[task]
        for _ in range(3):
            features, _ = conv4_by_hand(weights, x, None)
            loss = F.cross_entropy(F.linear(features, weights["head.weight"], weights["head.bias"]), y)
            gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=order == 2)
            weights = {n: w - 0.1 * g for (n, w), g in zip(weights.items(), gradients, strict=True)}
        _, moments = conv4_by_hand(weights, x, None)
        features, _ = conv4_by_hand(weights, episodes.query.x[task], moments)
        logits = F.linear(features, weights["head.weight"], weights["head.bias"])
        losses.append(F.cross_entropy(logits, episodes.targets[task]))
    by_hand = torch.stack(losses).mean()
    objective = build_objective(build_learner(spec))(learned, episodes, Stage())
    assert objective.loss.item() == pytest.approx(by_hand.item(), rel=1e-9)
    ours = torch.autograd.grad(objective.loss, list(learned.values()))
    theirs = torch.autograd.grad(by_hand, list(learned.values()))
    for name, a, b in zip(learned, ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9, msg=name)


def test_first_and_second_order_differ() -> None:
    case = Case(LearnerSpec("maml", InputSpec((1, 16, 16)), max_ways=3, backbone_settings={"width": 6}))
    first = Case(LearnerSpec("fomaml", InputSpec((1, 16, 16)), max_ways=3, backbone_settings={"width": 6}))
    params, episodes = case.params(), case.episodes()
    exact, approximate = gradient(case, params, episodes), gradient(first, params, episodes)
    assert any((exact[name] - approximate[name]).abs().max() > 1e-4 for name in exact)

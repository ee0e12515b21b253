"""Heads that are solved for, against optimisation until nothing moves."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from by_hand import features, shuffled_episodes, vector_case
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


def minimised(loss: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """Where a convex loss is least."""
    head = start.requires_grad_()
    optimizer = torch.optim.LBFGS(
        [head], max_iter=2000, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def evaluate() -> Tensor:
        optimizer.zero_grad()
        value = loss(head)
        value.backward()
        return value

    optimizer.step(evaluate)
    return head.detach()


class Operations(TorchDispatchMode):
    """Notes which operations are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        self.names.add(operation.name())
        return operation(*arguments, **(keywords or {}))


@pytest.mark.parametrize("method", ["r2d2", "lr-d2"])
@pytest.mark.parametrize("shots", [2, 5])
def test_nobody_waits_for_a_device_to_say_whether_it_could_solve(method: str, shots: int) -> None:
    case = vector_case(method)
    with torch.no_grad(), Operations() as called:
        case.learner.adapt(case.params(), case.episodes(shots=shots).support)
    assert "aten::_linalg_solve_ex" in called.names
    assert not called.names & {"aten::_linalg_check_errors", "aten::_local_scalar_dense"}


@pytest.mark.parametrize("method", ["r2d2", "lr-d2"])
@pytest.mark.parametrize("shots", [2, 5])  # fewer examples than features, and more
def test_the_head_minimises_the_penalised_loss(method: str, shots: int) -> None:
    case = vector_case(method, **({"iterations": 30} if method == "lr-d2" else {}))
    params, episodes = case.params(), case.episodes(shots=shots)
    with torch.no_grad():
        state = case.learner.adapt(params, episodes.support).state
    penalty = params["ridge.log_penalty"].exp()
    for task in range(3):
        embedded = features(params, episodes.support.x[task])
        x = torch.cat([embedded, torch.ones_like(embedded[:, :1])], 1)
        y = F.one_hot(episodes.support.y[task], 3).double()

        def loss(head: Tensor, x: Tensor = x, y: Tensor = y) -> Tensor:
            if method == "r2d2":
                fit = (x @ head - y).square().sum() / 2
            else:
                fit = F.binary_cross_entropy_with_logits(x @ head, y, reduction="sum")
            return fit + penalty / 2 * head.square().sum()

        expected = minimised(loss, torch.zeros(9, 3, dtype=torch.float64))
        found = torch.cat([state["head.weight"][task], state["head.bias"][task].unsqueeze(1)], 1).T
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_answers_are_the_scaled_and_shifted_regression() -> None:
    case = vector_case("r2d2")
    params, episodes = case.params(), shuffled_episodes(case)
    with torch.no_grad():
        state = case.learner.adapt(params, episodes.support).state
        logits = case.learner.predict(params, state, episodes.query)
    for task in range(3):
        regression = features(params, episodes.query.x[task]) @ state["head.weight"][task].T + state["head.bias"][task]
        expected = params["ridge.log_scale"].exp() * regression + params["ridge.shift"]
        torch.testing.assert_close(logits[task], expected)

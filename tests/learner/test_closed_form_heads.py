"""Heads that are solved for, against optimisation until nothing moves."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from by_hand import features, shuffled_episodes, vector_case
from torch import Tensor


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

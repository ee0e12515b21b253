"""What an example counts where classes have different numbers of examples, worked out by hand."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from by_hand import WAYS, answers, features, vector_case
from cases import CASES, Case

from innerloop_learner import Episodes, LearnerSpec, Support

LABELS = torch.tensor([[0, 0, 0, 0, 1, 1, 2], [1, 0, 1, 2, 0, 0, 0]])
MASK = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])


def uneven(case: Case) -> Episodes:
    """Two tasks of three classes, with 4, 2 and 1 examples, and with 1, 2 and 1 and three of padding."""
    episodes = case.episodes(tasks=2, shots=4)
    rows = torch.where(MASK, LABELS * 4 + torch.arange(7) % 4, 0)
    x = episodes.support.x.gather(1, rows.unsqueeze(-1).expand(-1, -1, episodes.support.x.shape[2]))
    return replace(episodes, support=replace(episodes.support, x=x, y=LABELS, mask=MASK))


def test_classes_weigh_the_same_and_no_example_more_than_one() -> None:
    support = Support(torch.zeros(2, 7, 1), LABELS, MASK, torch.tensor([3, 3]), max_ways=5)
    quarter, half = 1 / 4, 1 / 2
    expected = [[quarter] * 4 + [half] * 2 + [1], [half, 1, half, 1, 0, 0, 0]]
    assert support.class_weights.tolist() == expected


def test_a_task_without_examples_has_no_weights() -> None:
    support = Support(torch.zeros(1, 2, 1), torch.zeros(1, 2, dtype=torch.int64), MASK[1:, 5:], torch.tensor([3]), 3)
    assert support.class_weights.tolist() == [[0, 0]]


@pytest.mark.parametrize("balance", ["equal", "proportional"])
def test_inner_steps_follow_the_weighted_loss(balance: str) -> None:
    case = chosen(vector_case("anil", steps=1, rate=0.1), balance)
    params, episodes = case.params(), uneven(case)
    head = {name: params[name].clone().requires_grad_() for name in ("head.weight", "head.bias")}
    found = answers(case, params, episodes)
    for index in range(2):
        x, y = (value[index][MASK[index]] for value in (episodes.support.x, LABELS))
        logits = features(params, x) @ head["head.weight"].T + head["head.bias"]
        each = F.cross_entropy(logits, y, reduction="none")
        by_class = torch.stack([each[y == label].mean() for label in range(WAYS)])
        loss = by_class.mean() if balance == "equal" else each.mean()
        stepped = [w - 0.1 * g for w, g in zip(head.values(), torch.autograd.grad(loss, head.values()), strict=True)]
        expected = features(params, episodes.query.x[index]) @ stepped[0].T + stepped[1]
        # Logits of anil are shifted by how near a query is to a class; probabilities are not.
        torch.testing.assert_close(found[index].softmax(-1), expected.detach().softmax(-1))


def test_matching_adds_up_attention_by_weights() -> None:
    case = vector_case("matching")
    params, episodes = case.params(), uneven(case)
    weights = episodes.support.class_weights
    found = answers(case, params, episodes)
    for index in range(2):
        own, theirs = (F.normalize(features(params, x[index]), dim=-1) for x in (episodes.query.x, episodes.support.x))
        attention = weights[index] * (params["attention.log_scale"].exp() * own @ theirs.T).exp()
        votes = attention @ F.one_hot(LABELS[index], WAYS).double()
        torch.testing.assert_close(found[index], votes.log())


@pytest.mark.parametrize("k", [1, 2, 50])
def test_neighbours_are_asked_until_their_weights_make_k(k: int) -> None:
    case = vector_case("knn", k=k)
    params, episodes = case.params(), uneven(case)
    weights = episodes.support.class_weights
    found = answers(case, params, episodes)
    for index in range(2):
        own, theirs = (F.normalize(features(params, x[index]), dim=-1) for x in (episodes.query.x, episodes.support.x))
        for query, similarities in enumerate(-10 * (own.unsqueeze(1) - theirs).square().sum(-1)):
            votes, asked = torch.zeros(WAYS, dtype=torch.float64), 0.0
            for nearest in similarities.argsort(descending=True).tolist():
                if asked < k - 1e-6:
                    votes[LABELS[index, nearest]] += weights[index, nearest] * similarities[nearest].exp()
                    asked += weights[index, nearest].item()
            torch.testing.assert_close(found[index, query].exp(), votes)


@pytest.mark.parametrize("method", ["r2d2", "lr-d2"])
@pytest.mark.parametrize("times", [2, 8], ids=["fewer-examples-than-features", "more-examples-than-features"])
def test_a_system_of_weighted_rows_is_that_of_a_balanced_support_set(method: str, times: int) -> None:
    """Examples that come several times weigh together as one: the same system, whichever form it is solved in."""
    case = vector_case(method)
    params, episodes = case.params(), case.episodes(shots=1)
    support = episodes.support
    rows = [0, *[1] * times, *[2] * times]
    many = replace(support, x=support.x[:, rows], y=support.y[:, rows], mask=support.mask[:, rows])
    torch.testing.assert_close(answers(case, params, episodes), answers(case, params, replace(episodes, support=many)))


def test_regression_counts_every_example() -> None:
    case = next(case for case in CASES if case.spec.task_kind == "regression")
    assert (case.learner.example_weights(case.episodes().support) == 1).all()


def test_bundles_that_do_not_speak_of_class_balance_are_balanced() -> None:
    written = vector_case("anil").spec.to_json()
    assert written.pop("class_balance") == "equal"
    assert LearnerSpec.from_json(written).class_balance == "equal"


def chosen(case: Case, balance: str) -> Case:
    """The same learner with a class balance."""
    return Case(replace(case.spec, class_balance=balance))  # type: ignore[arg-type]

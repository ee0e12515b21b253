"""Training tasks in which every example is a support example in turn."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from cases import CASES, Case

from innerloop_learner.objectives import Stage, build_objective
from innerloop_learner.objectives.query_loss import QueryLoss, in_turns
from innerloop_learner.settings import SettingsError
from innerloop_learner.tasks import Episodes, Query

TRAINED_BY_ANSWERS = [
    case for case in CASES if case.spec.task_kind == "classification" and isinstance(case.objective, QueryLoss)
]
ABLE = [case for case in TRAINED_BY_ANSWERS if case.learner.leaves_out]
UNABLE = [case for case in TRAINED_BY_ANSWERS if not case.learner.leaves_out]


START = Stage(progress=0.0)
"""No features are dropped at the start of training."""


def marked(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "case", [pytest.param(case, id=case.name, marks=pytest.mark.slow if case.seldom else ()) for case in cases]
    )


def mixed(episodes: Episodes, seed: int = 3) -> Episodes:
    """The same tasks, with support examples and queries in another order in each."""
    generator = torch.Generator().manual_seed(seed)
    support, query = episodes.support, episodes.query
    tasks = range(support.tasks)
    examples = [torch.randperm(support.x.shape[1], generator=generator) for _ in tasks]
    asked = [torch.randperm(query.x.shape[1], generator=generator) for _ in tasks]
    return replace(
        episodes,
        support=replace(
            support,
            x=torch.stack([support.x[task, examples[task]] for task in tasks]),
            y=torch.stack([support.y[task, examples[task]] for task in tasks]),
        ),
        query=Query(torch.stack([query.x[task, asked[task]] for task in tasks]), query.mask),
        targets=torch.stack([episodes.targets[task, asked[task]] for task in tasks]),
    )


def test_every_example_is_in_the_support_set_as_often_as_any_other() -> None:
    case = ABLE[0]
    episodes = mixed(case.episodes(shots=2, queries=3))
    turns = list(in_turns(episodes))
    assert len(turns) == 5
    assert turns[0] is episodes
    for task in range(3):
        seen: Counter[bytes] = Counter()
        for turn in turns:
            assert turn.support.y[task].bincount().tolist() == [2, 2, 2]
            assert turn.targets[task].bincount().tolist() == [3, 3, 3]
            seen.update(x.numpy().tobytes() for x in turn.support.x[task])
        assert set(seen.values()) == {2}
        assert len(seen) == 3 * 5
    labels = {x.numpy().tobytes(): y.item() for x, y in zip(*labelled(turns[0]), strict=True)}
    for one, other in pairwise(turns):
        assert not torch.equal(one.support.x, other.support.x)
        assert all(labels[x.numpy().tobytes()] == y.item() for x, y in zip(*labelled(other), strict=True))


def labelled(episodes: Episodes) -> tuple[torch.Tensor, torch.Tensor]:
    """All examples of the first task, and their labels."""
    support, query = episodes.support, episodes.query
    return torch.cat([support.x[0], query.x[0]]), torch.cat([support.y[0], episodes.targets[0]])


@marked(ABLE)
def test_the_loss_is_the_mean_of_those_of_all_turns(case: Case) -> None:
    params, episodes = case.params(), mixed(case.episodes(shots=2, queries=2))
    learned = [name for name in params if name not in case.learner.buffers() | case.learner.choices()]
    params |= {name: params[name].requires_grad_() for name in learned}
    outcome = build_objective(case.learner, {**case.training, "in_turn": True})(params, episodes, START)
    # Batch norm takes its statistics from all examples of the task, in every turn.
    x = torch.cat([episodes.support.x, episodes.query.x], 1)
    plain = case.objective
    assert isinstance(plain, QueryLoss)
    fresh = case.learner.backbone.refit(params, x, x.new_ones(x.shape[:2]))
    in_use = {**params, **fresh}
    losses, answers = [], []
    for turn in in_turns(episodes):
        state = case.learner.adapt(in_use, turn.support).state
        answers.append(case.learner.predict(in_use, state, turn.query))
        losses.append(plain.loss(answers[-1], turn.targets, turn.query.mask).mean())
    expected = torch.stack(losses).mean()
    torch.testing.assert_close(outcome.loss, expected)
    torch.testing.assert_close(outcome.outputs, answers[0])
    # Only batch norm keeps what it saw.
    assert set(outcome.buffers) == set(fresh)
    reached = torch.autograd.grad(outcome.loss, [params[name] for name in learned], allow_unused=True)
    wanted = torch.autograd.grad(expected, [params[name] for name in learned], allow_unused=True)
    for name, one, other in zip(learned, reached, wanted, strict=True):
        assert (one is None) == (other is None), name
        if one is not None:
            torch.testing.assert_close(one, other)


@marked(UNABLE)
def test_features_that_depend_on_the_support_set_are_refused(case: Case) -> None:
    with pytest.raises(SettingsError, match="leave in_turn out"):
        build_objective(case.learner, {**case.training, "in_turn": True})

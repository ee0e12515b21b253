"""Learning more examples into a task state: as good as adapting anew, or refused."""

from dataclasses import replace

import pytest
import torch
from cases import CASES, Case
from test_conformance import assert_same, lengthened
from torch import Tensor

from innerloop_learner import Query, Support, TaskState
from innerloop_learner.learner import TaskError, methods
from innerloop_learner.tasks import Episodes

EXTENDING = {"anml", "knn", "matching", "nearest-centroid", "oml", "protonet", "relation", "siamese", "simclr"}
"""Methods whose small learners extend; r2d2 and lr-d2 do where their states keep features."""


OF_MEANS = {"nearest-centroid", "protonet", "relation", "simclr"}
"""Those among them whose states keep numbers of examples."""


def _keeping() -> list[Case]:
    cases = [case for case in CASES if case.spec.method in ("r2d2", "lr-d2") and case.spec.weighting == "none"]
    return [Case(replace(case.spec, settings={**case.spec.settings, "keeps_features": True})) for case in cases]


ALL = [*CASES, *_keeping()]
ABLE = [case for case in ALL if case.learner.extends]
UNABLE = [case for case in ALL if not case.learner.extends]


def named(case: Case) -> str:
    return case.name + "-keeping" * bool(case.spec.settings.get("keeps_features"))


each_able = pytest.mark.parametrize("case", ABLE, ids=named)


def of_rows(case: Case, support: Support, rows: list[int], ways: int) -> Support:
    """Some examples of a support set, as tasks with the first so many classes."""
    return Support(
        support.x[:, rows],
        support.y[:, rows],
        support.mask[:, rows],
        torch.full_like(support.ways, ways),
        case.learner.padded_ways(ways),
    )


def learned(case: Case, parts: list[Support], query: Query) -> tuple[TaskState, Tensor]:
    """The state and the answers after adapting to the first part and learning the others into it."""
    params = case.params()
    with torch.no_grad():
        state = case.learner.adapt(params, parts[0]).state
        for part in parts[1:]:
            state = case.learner.extend(params, state, part).state
        return state, case.learner.predict(params, state, query)


def in_parts(case: Case, episodes: Episodes) -> tuple[Support, list[Support]]:
    """All examples of three tasks of four classes, unequally many of each; and the same in three parts.

    The first part has two classes, the second more of one of these and a third class, the last a fourth class alone.
    """
    first, second, third = [0, 1, 2, 3], [4, 6, 7, 8], [9]
    every = of_rows(case, episodes.support, [*first, *second, *third], 4)
    assert every.y[0].bincount().tolist() == [3, 2, 3, 1]
    parts = [of_rows(case, episodes.support, rows, ways) for rows, ways in ((first, 2), (second, 3), (third, 4))]
    return every, parts


def four_classes(case: Case) -> Episodes:
    """Three examples of each of four classes: 0, 1, 4 of the first, 2, 3, 5 of the second, then the others in turn."""
    episodes = case.episodes(shots=3, ways=4)
    rows = [0, 1, 3, 4, 2, 5, 6, 7, 8, 9, 10, 11]
    support = episodes.support
    return replace(episodes, support=replace(support, x=support.x[:, rows], y=support.y[:, rows]))


@pytest.mark.parametrize("balance", ["equal", "proportional"])
@each_able
def test_learning_in_parts_is_learning_all_at_once(case: Case, balance: str) -> None:
    case = Case(replace(case.spec, class_balance=balance))  # type: ignore[arg-type]
    episodes = four_classes(case)
    every, parts = in_parts(case, episodes)
    expected, found = learned(case, [every], episodes.query), learned(case, parts, episodes.query)
    assert_same(expected[1], found[1])
    assert expected[0].keys() == found[0].keys()
    assert all(expected[0][name].shape == found[0][name].shape for name in expected[0])
    before = learned(case, parts[:1], episodes.query)[1]
    assert (found[1][..., :2] - before[..., :2]).abs().max() > 1e-3


@each_able
def test_a_batch_of_tasks_extends_as_each_does_alone_whatever_the_padding(case: Case) -> None:
    episodes = four_classes(case)
    _, parts = in_parts(case, episodes)
    # In the second part the second task learns one example less, and the third none; then it learns a third class.
    parts[1].mask[1, 3:] = False
    parts[1].mask[2, :] = False
    parts[1].ways[2], parts[2].ways[2], parts[2].y[2] = 2, 3, 2
    together = learned(case, parts, episodes.query)[1]
    for index, real in enumerate((4, 3, 0)):
        rows = slice(index, index + 1)
        alone = [
            replace(part, **{name: getattr(part, name)[rows] for name in ("x", "y", "mask", "ways")}) for part in parts
        ]
        alone[1] = replace(alone[1], **{name: getattr(alone[1], name)[:, :real] for name in ("x", "y", "mask")})
        padded = [lengthened(Episodes(part, episodes.query, episodes.targets), 2, 0).support for part in alone]
        if not real:
            del alone[1]
        query = Query(episodes.query.x[rows], episodes.query.mask[rows])
        assert_same(together[rows], learned(case, alone, query)[1])
        assert_same(together[rows], learned(case, padded, query)[1])


@pytest.mark.parametrize("case", UNABLE, ids=named)
def test_methods_that_cannot_extend_say_that_they_must_adapt_anew(case: Case) -> None:
    assert not case.learner.traits.extends
    params, support = case.params(), case.episodes().support
    with torch.no_grad():
        state = case.learner.adapt(params, support).state
        with pytest.raises(TaskError, match="adapt anew on all examples, old and new"):
            case.learner.extend(params, state, support)


def test_which_methods_extend() -> None:
    assert {case.spec.method for case in CASES if case.learner.traits.extends} == EXTENDING
    assert {name for name in methods if methods[name].info.extends} == EXTENDING | {"r2d2", "lr-d2"}


@pytest.mark.parametrize("case", [case for case in ABLE if case.spec.method in OF_MEANS], ids=named)
def test_states_of_before_they_could_be_extended_are_refused(case: Case) -> None:
    params, support = case.params(), case.episodes().support
    with torch.no_grad():
        state = case.learner.adapt(params, support).state
        del state["counts"]
        with pytest.raises(TaskError, match="does not hold 'counts'"):
            case.learner.extend(params, state, support)

"""How wide logits are, and which numbers of ways a learner takes."""

from dataclasses import replace

import pytest
from cases import CASES, Case

from innerloop_learner import InputSpec, Learner, LearnerSpec, build_learner
from innerloop_learner.learner import TaskError
from innerloop_learner.methods.maml import MAML


def image_learner(method: str) -> Learner:
    return build_learner(LearnerSpec(method, InputSpec((1, 16, 16)), max_ways=5))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_logits_are_as_wide_as_the_learner_says(case: Case) -> None:
    if case.spec.task_kind == "regression":
        assert case.learner.padded_ways(0) == 0
        return
    params, ways = case.params(), 3
    episodes = case.episodes(ways=ways)
    width = case.learner.padded_ways(ways)
    state = case.learner.adapt(params, replace(episodes.support, max_ways=width)).state
    assert case.learner.predict(params, state, episodes.query).shape[-1] == width


def test_a_learner_without_a_head_takes_any_number_of_ways() -> None:
    assert [image_learner("protonet").padded_ways(ways) for ways in (2, 5, 50)] == [2, 5, 50]


def test_a_head_takes_fewer_ways_and_stays_as_wide_as_it_is() -> None:
    learner = image_learner("maml")
    assert [learner.padded_ways(ways) for ways in (2, 5)] == [5, 5]
    with pytest.raises(TaskError, match="this maml model takes at most 5 ways, not 6"):
        learner.padded_ways(6)


def test_a_learner_whose_ways_are_fixed_takes_no_others() -> None:
    class Fixed(MAML):
        info = replace(MAML.info, name="fixed", ways_can_change="no")

    learner = Fixed(LearnerSpec("fixed", InputSpec((1, 16, 16)), max_ways=5))
    assert learner.padded_ways(5) == 5
    for ways in (4, 6):
        with pytest.raises(TaskError, match=f"this fixed model takes exactly 5 ways, not {ways}"):
            learner.padded_ways(ways)

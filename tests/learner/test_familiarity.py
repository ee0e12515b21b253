"""What logits of a linear head on a body that does not adapt say of queries that look like no class."""

import pytest
import torch
import torch.nn.functional as F
from cases import CASES

from innerloop_learner.familiarity import CENTRES
from innerloop_learner.gradient_learner import GradientLearner
from innerloop_learner.state import STATISTICS, section

ANIL = [case for case in CASES if isinstance(case.learner, GradientLearner) and case.learner.keeps_centres]
each = pytest.mark.parametrize("case", ANIL, ids=[case.name for case in ANIL])


def adapted(case):
    """Parameters, episodes of three classes, and the state after adapting."""
    params, episodes = case.params(), case.episodes(shots=3)
    with torch.no_grad():
        return params, episodes, case.learner.adapt(params, episodes.support).state


def test_methods_whose_head_alone_adapts_are_among_them():
    assert {case.spec.method for case in ANIL} >= {"anil"}
    assert all(case.spec.task_kind == "classification" for case in ANIL)


@each
def test_no_probability_changes_and_the_largest_logit_is_the_cosine_of_the_nearest_class(case):
    params, episodes, state = adapted(case)
    support, query, learner = episodes.support, episodes.query, case.learner
    ways = int(support.ways[0])
    with torch.no_grad():
        with_centres = learner.predict(params, state, query)
        plain = learner.predict(params, {name: value for name, value in state.items() if name != CENTRES}, query)
        body = {**params, **section(state, "weights.")}
        statistics = section(state, STATISTICS)
        seen = learner.backbone.apply(body, support.x, learner.example_weights(support)).values
        asked = learner.backbone.apply(body, query.x, query.mask, statistics).values
    torch.testing.assert_close(with_centres.softmax(-1), plain.softmax(-1))
    if case.spec.weighting != "none" or case.spec.support_policy != "none":
        return  # examples count more or less there, or come with copies
    for task in range(support.tasks):
        nearest = torch.full(asked.shape[1:2], -1.0, dtype=asked.dtype)
        for way in range(ways):
            own = F.normalize(seen[task][(support.y[task] == way) & support.mask[task]], dim=-1)
            nearest = torch.maximum(nearest, F.cosine_similarity(asked[task], own.sum(0, keepdim=True), dim=-1))
        torch.testing.assert_close(with_centres[task].amax(-1), nearest)


@each
def test_training_does_not_notice(case):
    def gradients(forget):
        params = {name: value.clone().requires_grad_() for name, value in case.params().items()}
        episodes = case.episodes(shots=2)
        state = case.learner.adapt(params, episodes.support).state
        if forget:
            state.pop(CENTRES)
        logits = case.learner.predict(params, state, episodes.query)
        loss = F.cross_entropy(logits.flatten(0, 1), episodes.targets.flatten())
        return torch.autograd.grad(loss, list(params.values()), allow_unused=True)

    for one, other in zip(gradients(forget=False), gradients(forget=True), strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)

"""Learned weights of support examples, worked out by hand."""

import re
from dataclasses import replace

import pytest
import torch
from by_hand import answers, features, vector_case
from cases import Case
from torch import Tensor

from innerloop_learner import Episodes, LearnerSpec, Params, build_learner
from innerloop_learner.learner import methods
from innerloop_learner.objectives.objective import Stage
from innerloop_learner.registry import UnknownNameError
from innerloop_learner.settings import SettingsError
from innerloop_learner.weightings import weightings
from innerloop_learner.weightings.leave_one_out import GAIN, ROUNDS, SMALLEST

CAN = {name for name in methods if methods[name].weighs_examples}
LABELS = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 2], [1, 0, 1, 2, 0, 0, 0, 0]])
MASK = torch.tensor([[True] * 8, [True] * 6 + [False] * 2])


def weighing(method: str) -> Case:
    return Case(replace(vector_case(method).spec, weighting="leave_one_out"))


def uneven(case: Case) -> Episodes:
    """Two tasks of three classes, with 4, 3 and 1 examples, and with 3, 2 and 1 and two of padding."""
    episodes = case.episodes(tasks=2, shots=4)
    rows = torch.where(MASK, LABELS * 4 + torch.arange(8) % 4, 0)
    x = episodes.support.x.gather(1, rows.unsqueeze(-1).expand(-1, -1, 6))
    return replace(episodes, support=replace(episodes.support, x=x, y=LABELS, mask=MASK))


def by_hand(params: Params, f: Tensor, y: Tensor) -> Tensor:
    """Weights [S] of one task's examples from their features [S, F]: the docstring's equations, with loops."""
    weights = torch.ones(len(y), dtype=f.dtype)
    classes = y.unique().tolist()

    def mean_of(chosen: Tensor) -> Tensor:
        return (weights[chosen].unsqueeze(-1) * f[chosen]).sum(0) / weights[chosen].sum()

    for _ in range(ROUNDS):
        d, o = torch.zeros(2, len(y), dtype=f.dtype)
        for i in range(len(y)):
            rest = (y == y[i]) & (torch.arange(len(y)) != i)
            d[i] = (f[i] - mean_of(rest)).square().sum() if rest.any() else 0
            o[i] = min((f[i] - mean_of(y == k)).square().sum() for k in classes if k != y[i])
        scale = (d * weights).sum() / weights.sum()
        d_log, o_log = (d / scale + SMALLEST).log(), (o / scale + SMALLEST).log()
        usual = torch.stack([d_log[y == y[i]].mean() for i in range(len(y))])
        q = torch.stack([d_log, o_log, d_log - usual], -1)
        hidden = (q @ params["weighting.in.weight"].T + params["weighting.in.bias"]).tanh()
        said = hidden @ params["weighting.out.weight"] + params["weighting.out.bias"]
        v = (GAIN * said).sigmoid() + SMALLEST
        weights = v / torch.stack([v[y == y[i]].mean() for i in range(len(y))])
    return weights


def test_examples_are_judged_by_the_others_of_their_class() -> None:
    case = weighing("protonet")
    params, episodes = case.params(), uneven(case)
    adapted = case.learner.adapt(params, episodes.support)
    assert adapted.weights is not None
    for task in range(2):
        real = MASK[task]
        f, y = features(params, episodes.support.x[task][real]), LABELS[task][real]
        expected = by_hand(params, f, y)
        assert expected.std() > 0.01
        torch.testing.assert_close(adapted.weights[task][real], expected)
        assert (adapted.weights[task][~real] == 0).all()
        means = torch.stack([(expected[y == k].unsqueeze(-1) * f[y == k]).sum(0) / (y == k).sum() for k in range(3)])
        torch.testing.assert_close(adapted.state["prototypes"][task, :3], means)


@pytest.mark.parametrize("method", ["r2d2", "lr-d2", "anil", "maml"])
def test_a_weight_of_two_counts_as_two_examples(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Class weights times learned ones: weights of 2 and 0 are an example that comes twice, and one that is gone."""
    case = weighing(method)
    params, episodes = case.params(), case.episodes(shots=2)
    support, first = episodes.support, torch.arange(6) % 2 == 0
    learned = torch.where(first, 2.0, 0.0).double().expand_as(support.y)
    monkeypatch.setattr(case.learner.weighting, "weigh", lambda *_: learned)
    rows = torch.arange(6)[first].repeat_interleave(2)
    twice = replace(support, x=support.x[:, rows])
    plain = Case(replace(case.spec, weighting="none"))
    torch.testing.assert_close(
        answers(case, params, episodes), answers(plain, params, replace(episodes, support=twice))
    )


@pytest.mark.parametrize("method", sorted(CAN))
def test_a_weighting_begins_with_equal_weights_and_then_learns(method: str) -> None:
    case = weighing(method)
    learner, plain = case.learner, build_learner(replace(case.spec, weighting="none"))
    params, before = (each.init(torch.Generator().manual_seed(0)) for each in (learner, plain))
    assert all(torch.equal(params[name], value) for name, value in before.items())
    episodes = case.episodes(shots=3).to(torch.float32)
    weights = learner.adapt(params, episodes.support).weights
    assert weights is not None
    torch.testing.assert_close(weights, torch.ones_like(weights))
    own = {name: value.requires_grad_() for name, value in params.items() if name.startswith("weighting.")}
    loss = case.objective(params, episodes, Stage()).loss
    gradients = torch.autograd.grad(loss, list(own.values()))
    assert gradients[list(own).index("weighting.out.weight")].abs().max() > 0


def test_the_gradient_goes_through_the_weights() -> None:
    """Float64 and finite differences, for class means and for a step on the head."""
    for method in ("protonet", "anil"):
        case = weighing(method)
        params, episodes = case.params(), uneven(case)
        name = "weighting.in.weight"

        def loss(value: Tensor) -> Tensor:
            return case.objective({**params, name: value}, episodes, Stage()).loss  # noqa: B023 - called at once

        assert torch.autograd.gradcheck(loss, params[name].clone().requires_grad_())


def test_an_example_alone_in_its_class_has_weight_one() -> None:
    case = weighing("protonet")
    episodes = case.episodes(shots=1)
    params = {name: value.requires_grad_() for name, value in case.params().items()}
    adapted = case.learner.adapt(params, episodes.support)
    assert adapted.weights is not None
    torch.testing.assert_close(adapted.weights, torch.ones_like(adapted.weights))
    loss = case.objective(params, episodes, Stage()).loss
    assert all(each.isfinite().all() for each in torch.autograd.grad(loss, list(params.values())))


def test_methods_without_a_place_for_weights_refuse_them() -> None:
    assert {"protonet", "r2d2", "lr-d2", "anil", "maml"} <= CAN
    for method in sorted({*methods} - CAN):
        spec = weighing(method).spec
        with pytest.raises(SettingsError, match=f"{re.escape(method)} can't learn weights of its support examples"):
            build_learner(spec)
    waves = replace(vector_case("maml").spec, task_kind="regression", max_ways=0, target_size=1)
    with pytest.raises(SettingsError, match="regression has no classes"):
        build_learner(replace(waves, weighting="leave_one_out"))
    with pytest.raises(UnknownNameError, match="unknown weighting 'best'; there are: leave_one_out, none"):
        build_learner(replace(waves, weighting="best"))


def test_bundles_that_trust_every_label_do_not_speak_of_weightings() -> None:
    spec = vector_case("protonet").spec
    assert "weighting" not in spec.to_json()
    assert LearnerSpec.from_json(spec.to_json()) == spec
    weighed = replace(spec, weighting="leave_one_out")
    assert LearnerSpec.from_json(weighed.to_json()) == weighed
    assert list(weightings) == ["leave_one_out", "none"]


def test_rounding_says_nothing_of_an_example_alone_in_its_class() -> None:
    case = weighing("protonet")
    params, episodes = case.params(), uneven(case)
    support = replace(episodes.support, x=100 * episodes.support.x)
    few = {name: value.float() for name, value in params.items()}
    exact, rounded = (case.learner.adapt(params, support), case.learner.adapt(few, support.to(torch.float32)))
    assert exact.weights is not None
    assert rounded.weights is not None
    torch.testing.assert_close(rounded.weights.double(), exact.weights, rtol=1e-3, atol=1e-4)

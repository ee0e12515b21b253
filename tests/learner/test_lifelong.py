"""Learning one example after the other: against plain SGD on a full head, worked out task by task."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from by_hand import WAYS, answers, features, shuffled_episodes, vector_case
from cases import TRAIN_CLASSES, Case
from torch import Tensor

from innerloop_learner import Params, Support, build_learner
from innerloop_learner.importances import importances
from innerloop_learner.objectives import Stage
from innerloop_learner.registry import UnknownNameError
from innerloop_learner.settings import SettingsError

OUTPUTS = 6

each_importance = pytest.mark.parametrize("importance", list(importances))


def online_case(importance: str = "none", method: str = "oml", **settings: Any) -> Case:
    usual = {"outputs": OUTPUTS, "rate": 0.3, "importance": importance, "normalise": False, "scale": 2.0}
    return vector_case(method, **{**usual, **settings})


def logits_of(params: Params, x: Tensor, head: Tensor) -> Tensor:
    """Logits [N, W] of features [N, F], given a head [W, F + 1]."""
    return params["online.log_scale"].exp() * with_one(x) @ head.T


def with_one(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones_like(x[..., :1])], -1)


def learned(params: Params, importance: str, head: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The head [N, F + 1] after one step of SGD for each of the examples [S, F] with labels [S]."""
    rate, held = params["online.log_rate"].exp(), torch.zeros_like(head)
    for one, label in zip(with_one(x), y, strict=True):
        weights, own = head.detach().requires_grad_(), F.one_hot(label, len(head)).unsqueeze(1)
        (gradient,) = torch.autograd.grad(F.cross_entropy(weights @ one, label), weights)
        divisor: Tensor | float = 1.0
        if importance != "none":
            divisor = 1 + rate * params["importance.log_strength"].exp() * held
        if importance == "ewc":
            held = held + own * gradient.square()
        if importance == "mas":
            (relied,) = torch.autograd.grad((weights @ one).square().sum() / 2, weights)
            held = held + own * relied.abs()
        head = head - rate * gradient / divisor
    return head.detach()


@each_importance
def test_examples_are_steps_of_sgd_on_a_head_with_all_its_outputs(importance: str) -> None:
    case = online_case(importance)
    params, episodes = case.params(), shuffled_episodes(case)
    found = answers(case, params, episodes)
    for task in range(3):
        start = params["online.start"].expand(OUTPUTS, -1)
        head = learned(params, importance, start, features(params, episodes.support.x[task]), episodes.support.y[task])
        asked = features(params, episodes.query.x[task])
        expected = logits_of(params, asked, head[:WAYS])
        torch.testing.assert_close(found[task], expected)
        assert (expected - logits_of(params, asked, start[:WAYS])).abs().max() > 0.1


@pytest.mark.parametrize("importance", ["ewc", "mas"])
def test_importance_holds_what_was_learned_and_without_strength_does_nothing(importance: str) -> None:
    case, plain = online_case(importance), online_case()
    params, episodes = case.params(), shuffled_episodes(case)
    weak, strong = (
        {**params, "importance.log_strength": torch.full_like(params["importance.log_strength"], value)}
        for value in (-50.0, 50.0)
    )
    torch.testing.assert_close(answers(case, weak, episodes), answers(plain, params, episodes))
    # With boundless strength a weight takes no step after the first that an example relied on it for.
    first = replace(episodes.support, **{name: getattr(episodes.support, name)[:, :1] for name in ("x", "y", "mask")})
    with torch.no_grad():
        once, often = (case.learner.adapt(strong, each).state["rows"] for each in (first, episodes.support))
    relied = case.learner.adapt(strong, first).state["importance"] > 1e-6
    assert relied.any()
    torch.testing.assert_close(once[relied], often[relied])


def test_a_head_for_every_class_has_no_outputs_left() -> None:
    case = online_case(max_ways=OUTPUTS)
    params, episodes = case.params(), case.episodes(ways=OUTPUTS)
    support = episodes.support
    start = params["online.start"].expand(OUTPUTS, -1)
    found = answers(case, params, episodes)
    head = learned(params, "none", start, features(params, support.x[0]), support.y[0])
    torch.testing.assert_close(found[0], logits_of(params, features(params, episodes.query.x[0]), head))


def test_second_derivatives_are_right_where_no_output_is_left() -> None:
    case = online_case(trajectory=2)
    params, episodes, name = case.params(), shuffled_episodes(case), "classifier.rows"
    direction = torch.randn(params[name].shape, generator=torch.Generator().manual_seed(0)).double()

    def slope(moved: Tensor) -> Tensor:
        """The derivative of the outer loss along the direction."""
        loss = case.objective({**params, name: moved}, episodes, Stage()).loss
        (gradient,) = torch.autograd.grad(loss, moved, create_graph=True)
        return (gradient * direction).sum()

    at = params[name].detach().requires_grad_()
    (found,) = torch.autograd.grad(slope(at), at)
    ahead, behind = (slope((at + step * direction).detach().requires_grad_()).item() for step in (1e-5, -1e-5))
    assert (found * direction).sum().item() == pytest.approx((ahead - behind) / 2e-5, rel=1e-5)


@each_importance
def test_the_outer_loss_is_that_of_learned_and_of_remembered_classes(importance: str) -> None:
    trajectory = 2
    case = online_case(importance, trajectory=trajectory)
    params, episodes = case.params(), shuffled_episodes(case)
    support, classes = episodes.support, episodes.classes
    assert classes is not None
    losses = []
    for task in range(3):
        labels = classes[task][support.y[task]]
        fresh = classes[task][:trajectory]
        head = params["classifier.rows"].clone()
        head[fresh] = params["online.start"]
        order = [row for label in range(trajectory) for row in range(6) if support.y[task, row] == label]
        online = torch.tensor(order)
        head = learned(params, importance, head, features(params, support.x[task, online]), labels[online])
        others = torch.tensor([row for row in range(6) if row not in order])
        x = torch.cat([features(params, episodes.query.x[task]), features(params, support.x[task, others])])
        y = torch.cat([classes[task][episodes.targets[task]], labels[others]])
        losses.append(F.cross_entropy(logits_of(params, x, head), y))
    assert len(params["classifier.rows"]) == TRAIN_CLASSES
    torch.testing.assert_close(case.objective(params, episodes, Stage()).loss, torch.stack(losses).mean())


@each_importance
def test_without_a_trajectory_the_outer_loss_is_that_of_all_classes_learned_one_by_one(importance: str) -> None:
    case = online_case(importance)
    params, episodes = case.params(), shuffled_episodes(case)
    losses = []
    for task in range(3):
        y = episodes.support.y[task]
        order = y.argsort(stable=True)
        start = params["online.start"].expand(OUTPUTS, -1)
        head = learned(params, importance, start, features(params, episodes.support.x[task, order]), y[order])
        logits = logits_of(params, features(params, episodes.query.x[task]), head[:WAYS])
        losses.append(F.cross_entropy(logits, episodes.targets[task]))
    outcome = case.objective(params, episodes, Stage())
    torch.testing.assert_close(outcome.loss, torch.stack(losses).mean())
    assert outcome.outputs.shape == (3, episodes.query.x.shape[1], WAYS)


@each_importance
@pytest.mark.parametrize("trajectory", [0, 2])
def test_gradients_go_through_the_steps(trajectory: int, importance: str) -> None:
    case = online_case(importance, trajectory=trajectory)
    params, episodes = case.params(), shuffled_episodes(case)
    names = ["online.start", "online.log_rate", "online.log_scale", "linear1.weight"]
    names += ["classifier.rows"] if trajectory else []
    names += ["importance.log_strength"] if importance != "none" else []

    def loss(*values: Tensor) -> Tensor:
        return case.objective({**params, **dict(zip(names, values, strict=True))}, episodes, Stage()).loss

    assert torch.autograd.gradcheck(loss, [params[name].requires_grad_() for name in names], fast_mode=True)


def test_features_are_divided_by_their_length() -> None:
    case, plain = online_case(normalise=True), online_case()
    params, episodes = case.params(), case.episodes()
    expected = F.normalize(features(params, episodes.query.x), dim=-1)
    with torch.no_grad():
        state = case.learner.adapt(params, episodes.support).state
        rows = state["rows"]
        found = case.learner.predict(params, state, episodes.query)
    products = expected @ rows[..., :-1].transpose(1, 2) + rows[..., -1].unsqueeze(1)
    torch.testing.assert_close(found, params["online.log_scale"].exp() * products)
    assert not torch.allclose(rows, plain.learner.adapt(params, episodes.support).state["rows"])


def test_a_second_network_opens_and_closes_features() -> None:
    case = online_case(method="anml")
    params, episodes = case.params(), case.episodes()
    of_modulator = {name.removeprefix("modulator."): value for name, value in params.items() if "modulator" in name}
    x = episodes.query.x
    gates = (features(of_modulator, x) @ params["gate.weight"].T + params["gate.bias"]).sigmoid()
    found = case.learner.backbone.apply(params, x, episodes.query.mask).values
    torch.testing.assert_close(found, gates * features(params, x))
    assert gates.std() > 0.01


def test_statistics_of_both_networks_are_averaged() -> None:
    spec = online_case(method="anml").spec
    case = Case(replace(spec, backbone_settings={"widths": [10, 8], "norm": "batch"}))
    buffers = case.objective(case.params(), case.episodes(), Stage()).buffers
    assert buffers.keys() == case.learner.buffers()
    assert {"norm0.running_mean", "modulator.norm0.running_mean"} <= buffers.keys()


def test_what_does_not_fit_is_refused() -> None:
    spec = online_case().spec
    with pytest.raises(SettingsError, match="oml needs an output for each of 20 classes; raise outputs"):
        build_learner(replace(spec, max_ways=20))
    with pytest.raises(UnknownNameError, match="unknown importance 'fame'; there are: ewc, mas, none"):
        build_learner(replace(spec, settings={"importance": "fame"}))
    with pytest.raises(SettingsError, match="oml remembers training classes, but the data names none"):
        Case(replace(spec, train_classes=0), {"trajectory": 2}).objective  # noqa: B018


def test_an_example_of_padding_is_no_step() -> None:
    case = online_case("ewc")
    params, support = case.params(), case.episodes().support
    nothing = Support(support.x, support.y, torch.zeros_like(support.mask), support.ways, support.max_ways)
    with torch.no_grad():
        state = case.learner.adapt(params, support).state
        again = case.learner.extend(params, state, nothing).state
    assert all(torch.equal(state[name], again[name]) for name in state)

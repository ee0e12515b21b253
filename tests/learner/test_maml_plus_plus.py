"""MAML++ part by part: each can be switched off, and does what its paper says."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from by_hand import vector_case
from cases import Case
from torch import Tensor

from innerloop_learner import Params
from innerloop_learner.losses import classification_loss
from innerloop_learner.objectives import Stage
from innerloop_learner.objectives.annealed_steps import AnnealedSteps, AnnealedStepsSettings
from innerloop_learner.objectives.every_step import task_states
from innerloop_learner.settings import SettingsError

STEPS = 3
OFF: dict[str, Any] = {
    "update_rule": "sgd",
    "multi_step_loss": False,
    "per_step_norm": False,
    "anneal_order": False,
}


def normed_case(norm: str = "layer", **settings: Any) -> Case:
    plain = vector_case("maml++", steps=STEPS, rate=0.1, **settings)
    return replace(plain, spec=replace(plain.spec, backbone_settings={"widths": [10, 8], "norm": norm}))


def gradient(case: Case, params: Params, stage: Stage) -> Params:
    learned = {name: value.detach().requires_grad_() for name, value in params.items()}
    loss = case.objective(learned, case.episodes(), stage).loss
    return dict(zip(learned, torch.autograd.grad(loss, list(learned.values()), materialize_grads=True), strict=True))


@pytest.mark.parametrize("norm", ["none", "layer", "task", "batch"])
def test_with_everything_off_it_is_maml(norm: str) -> None:
    plain = normed_case(norm, **OFF)
    spec = plain.spec
    maml = Case(replace(spec, method="maml", settings={"steps": STEPS, "rate": 0.1}))
    params, episodes = maml.params(), maml.episodes()
    assert plain.params().keys() == params.keys()
    ours, theirs = (case.objective(params, episodes, Stage()) for case in (plain, maml))
    torch.testing.assert_close(ours.loss, theirs.loss)
    assert ours.buffers.keys() == theirs.buffers.keys()
    for name, value in ours.buffers.items():
        torch.testing.assert_close(value, theirs.buffers[name])


def test_each_step_has_rates_and_norms_of_its_own() -> None:
    case = normed_case(multi_step_loss=False)
    params, episodes = case.params(), case.episodes()
    losses = []
    learned = {name: value.requires_grad_() for name, value in params.items()}
    slow = ("linear0.weight", "linear0.bias", "linear1.weight", "linear1.bias", "head.weight", "head.bias")

    def logits(weights: Params, step: int, x: Tensor) -> Tensor:
        for layer in range(2):
            x = x @ weights[f"linear{layer}.weight"].T + weights[f"linear{layer}.bias"]
            x = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
            x = (x * learned[f"norm{layer}.weight"][step] + learned[f"norm{layer}.bias"][step]).relu()
        return x @ weights["head.weight"].T + weights["head.bias"]

    for task in range(3):
        weights = {name: learned[name] for name in slow}
        for step in range(STEPS):
            loss = F.cross_entropy(logits(weights, step, episodes.support.x[task]), episodes.support.y[task])
            found = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
            weights = {
                name: weight - learned[f"rate.{name}"][step] * grad
                for (name, weight), grad in zip(weights.items(), found, strict=True)
            }
        losses.append(F.cross_entropy(logits(weights, STEPS, episodes.query.x[task]), episodes.targets[task]))
    theirs = torch.stack(losses).mean()
    ours = case.objective(learned, episodes, Stage()).loss
    torch.testing.assert_close(ours, theirs)
    pairs = (torch.autograd.grad(loss, list(learned.values())) for loss in (ours, theirs))
    for name, a, b in zip(learned, *pairs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-10, msg=name)


def test_early_losses_count_at_first_and_no_longer_in_the_end() -> None:
    weighted, last = normed_case(), normed_case(multi_step_loss=False)
    params, episodes = weighted.params(), weighted.episodes()

    def loss(case: Case, progress: float) -> float:
        return case.objective(params, episodes, Stage(progress=progress)).loss.item()

    with torch.no_grad():
        after = []
        for state in task_states(weighted.learner, params, episodes.support, 1):
            outputs = weighted.learner.predict(params, state, episodes.query)
            after.append(classification_loss(outputs, episodes.targets, episodes.query.mask).mean().item())
    assert loss(weighted, 0.0) == pytest.approx(sum(after) / STEPS)
    assert loss(weighted, 1.0) == pytest.approx(after[-1])
    assert loss(last, 0.0) == pytest.approx(after[-1])
    halfway = loss(weighted, 0.05)
    assert halfway == pytest.approx((after[0] + after[1]) / 6 + after[2] * 2 / 3)


def test_its_objective_trains_no_other_method() -> None:
    with pytest.raises(SettingsError, match="protonet is not a MAMLPlusPlus, which its objective trains"):
        AnnealedSteps(vector_case("protonet").learner, AnnealedStepsSettings())


def test_gradients_are_of_first_order_in_the_first_third() -> None:
    annealed, never = normed_case(multi_step_loss=False), normed_case(multi_step_loss=False, anneal_order=False)
    params = annealed.params()
    early, late, always = (
        gradient(case, params, Stage(progress=progress))["linear0.weight"]
        for case, progress in ((annealed, 0.2), (annealed, 0.5), (never, 0.2))
    )
    torch.testing.assert_close(late, always)
    assert (early - late).abs().max() > 1e-3 * late.abs().max()


def test_running_statistics_are_kept_for_every_step() -> None:
    case = normed_case("batch")
    params, episodes = case.params(), case.episodes()
    fresh = case.objective(params, episodes, Stage()).buffers
    for name in case.learner.buffers():
        assert params[name].shape[0] == fresh[name].shape[0] == STEPS + 1
        # Weights move, so the activations that are measured do, too.
        assert not torch.allclose(fresh[name][0] - params[name][0], fresh[name][-1] - params[name][-1])

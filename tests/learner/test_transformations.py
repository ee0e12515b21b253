"""Feature-wise transformations: their equation worked out by hand, their randomness, and who takes them."""

import re

import pytest
import torch
import torch.nn.functional as F
from cases import CASES, Case

from innerloop_learner import InputSpec, LearnerSpec, build_learner
from innerloop_learner.objectives import Stage
from innerloop_learner.objectives.transformed import Transformed
from innerloop_learner.settings import SettingsError
from innerloop_learner.state import section
from innerloop_learner.transformations import build_transformation

CHANGED_INSIDE = {
    *("boil", "fomaml", "imaml", "lstm-optimizer", "maml", "maml++", "meta-lstm", "meta-sgd", "partial-maml"),
    *("reptile", "scratch"),
}
"""Methods whose inner loop changes norms, as they are tried here."""

IMAGES = {
    case.spec.method: case
    for case in reversed(CASES)
    if case.spec.backbone_settings.get("norm") == "batch" and case.spec.weighting == "none"
}


def with_norm(norm: str) -> Case:
    backbone = {"width": 8, "downsample": "stride", "norm": norm}
    return Case(LearnerSpec("protonet", InputSpec((1, 16, 16)), max_ways=4, backbone_settings=backbone))


@pytest.mark.parametrize("norm", ["batch", "task", "group", "layer"])
def test_outputs_of_norms_are_scaled_and_shifted_by_channel_for_each_task(norm: str) -> None:
    case = with_norm(norm)
    part, backbone = build_transformation("feature_wise", case.learner, {}), case.learner.backbone
    params = {**case.params(), **{name: value.double() for name, value in part.init().items()}}
    episodes = case.episodes(tasks=2)
    x, mask = episodes.support.x, episodes.support.mask
    changed = part.transformed(params, 2, torch.Generator().manual_seed(4))
    features = backbone.apply({**params, **changed}, x, mask).values

    generator, by_hand = torch.Generator().manual_seed(4), x
    for block, layer in enumerate(backbone.norms):
        by_hand = torch.stack(
            [
                F.conv2d(each, params[f"conv{block}.weight"], params[f"conv{block}.bias"], stride=2, padding=1)
                for each in by_hand
            ]
        )
        z, _ = layer.apply(params, by_hand, mask, {})
        strengths = section(params, f"transformation.norm{block}.")
        factor = 1 + torch.randn(2, 8, generator=generator).double() * (1 + strengths["scale"].exp()).log()
        summand = torch.randn(2, 8, generator=generator).double() * (1 + strengths["shift"].exp()).log()
        by_hand = (factor[:, None, :, None, None] * z + summand[:, None, :, None, None]).relu()
    torch.testing.assert_close(features, by_hand.flatten(2))


def test_deviations_begin_as_set_and_draws_have_them() -> None:
    learner = with_norm("batch").learner
    part = build_transformation("feature_wise", learner, {"scale_deviation": 0.2, "shift_deviation": 0.4})
    params = {**learner.init(torch.Generator().manual_seed(0)), **part.init()}
    drawn = part.transformed(params, 20_000, torch.Generator().manual_seed(1))
    for name, mean, deviation in (("norm2.weight", 1.0, 0.2), ("norm2.bias", 0.0, 0.4)):
        assert drawn[name].mean().item() == pytest.approx(mean, abs=0.01)
        assert drawn[name].std().item() == pytest.approx(deviation, rel=0.02)
    assert torch.corrcoef(drawn["norm1.weight"].T).triu(1).abs().max() < 0.04  # channels by themselves


def test_equal_seeds_transform_alike_and_running_statistics_are_those_of_features_as_they_are() -> None:
    case = with_norm("batch")
    objective = Transformed(case.objective, build_transformation("feature_wise", case.learner, {}))
    params, episodes = case.params(), case.episodes()
    params = {**params, **{name: value.double() for name, value in objective.init(torch.Generator()).items()}}
    once, again, other = (objective(params, episodes, Stage(seed=seed)) for seed in (1, 1, 2))
    plain = objective.plain(params, episodes, Stage(seed=1))
    assert once.loss == again.loss
    assert once.loss != other.loss
    assert once.loss != plain.loss
    assert plain.buffers
    assert all(torch.equal(value, once.buffers[name]) for name, value in plain.buffers.items())


@pytest.mark.parametrize("method", sorted(IMAGES))
def test_every_method_is_trained_with_it_or_refuses_it(method: str) -> None:
    case = IMAGES[method]
    if method in CHANGED_INSIDE:
        with pytest.raises(SettingsError, match=f"the inner loop of {re.escape(method)} changes the norms"):
            build_transformation("feature_wise", case.learner, {})
        return
    objective = Transformed(case.objective, build_transformation("feature_wise", case.learner, {}))
    params, episodes = case.params(), case.episodes()
    strengths = {name: value.double() for name, value in objective.init(torch.Generator()).items()}
    learned = {name: value.requires_grad_() for name, value in strengths.items() if name in objective.strengths()}
    loss = objective({**params, **strengths, **learned}, episodes, Stage()).loss
    gradients = torch.autograd.grad(loss, list(learned.values()))
    assert len(gradients) == 2 * len(case.learner.backbone.norms)
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert max(gradient.abs().max() for gradient in gradients) > 0


@pytest.mark.parametrize(("backbone", "settings"), [("mlp", {}), ("conv4", {"norm": "none"}), ("scaled", {})])
def test_a_backbone_without_norms_has_no_place_for_it(backbone: str, settings: dict[str, str]) -> None:
    spec = LearnerSpec("protonet", InputSpec((1, 16, 16)), backbone=backbone, backbone_settings=settings)
    with pytest.raises(SettingsError, match=f"the backbone {backbone} has no norms"):
        build_transformation("feature_wise", build_learner(spec), {})

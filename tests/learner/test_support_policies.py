"""Augmented copies of support examples: what they are, what they count, how they are learned, and who takes them."""

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from by_hand import answers, vector_case
from cases import Case
from torch import Tensor

from innerloop_learner import Episodes, InputSpec, LearnerSpec, build_learner
from innerloop_learner.augmentations import Augment, build_augmentation
from innerloop_learner.draws import example_keys, keys_of_sample, uniform_draws
from innerloop_learner.learner import methods
from innerloop_learner.objectives.objective import Stage
from innerloop_learner.registry import UnknownNameError
from innerloop_learner.settings import SettingsError
from innerloop_learner.support_policies import support_policies

CAN = {name for name in methods if methods[name].augments_support}
STILL = "affine?rotation=0&scale=0&shear=0,elastic?distance=0,stroke?width=0,erasing?probability=0&area=0"
EVERY = "affine,elastic,stroke,colour,erasing"
IMAGE = (1, 10, 10)
COPIES = 2


def copying(method: str, policy: str = "learned", **settings: Any) -> Case:
    """A method on small images, with a policy."""
    own = {"steps": 2, "rate": 0.1} if method in ("anil", "maml") else {}
    spec = LearnerSpec(
        method,
        InputSpec(IMAGE),
        max_ways=3,
        backbone_settings={"width": 4, "downsample": "stride", "norm": "task"},
        settings=own,
        support_policy=policy,
        policy_settings={"copies": COPIES, **settings} if policy != "none" else {},
    )
    return Case(spec)


def smooth(case: Case, shots: int = 2) -> Episodes:
    """Episodes of smooth images; the first class of the first task has one example, and one of padding."""
    episodes = case.episodes(tasks=2, shots=shots, queries=2)

    def blurred(x: Tensor) -> Tensor:
        coarse = torch.nn.functional.avg_pool2d(x.flatten(0, 2), 3, stride=3).unsqueeze(1)
        return torch.nn.functional.interpolate(coarse, IMAGE[1:], mode="bilinear").view(x.shape)

    support, query = episodes.support, episodes.query
    mask = support.mask.clone()
    mask[0, 0] = False
    return replace(
        episodes,
        support=replace(support, x=blurred(support.x), mask=mask),
        query=replace(query, x=blurred(query.x)),
    )


@pytest.mark.parametrize("method", ["protonet", "r2d2", "lr-d2", "anil", "maml"])
@pytest.mark.parametrize("balance", ["equal", "proportional"])
def test_copies_without_strength_change_no_answer(method: str, balance: str) -> None:
    case = copying(method, "fixed", augment=STILL)
    case = replace(case, spec=replace(case.spec, class_balance=balance))
    plain = replace(case, spec=replace(case.spec, support_policy="none", policy_settings={}))
    params, episodes = plain.params(), smooth(plain)
    torch.testing.assert_close(answers(case, params, episodes), answers(plain, params, episodes), rtol=0, atol=1e-9)
    usual = copying(method, "fixed")
    assert not torch.allclose(answers(usual, params, episodes), answers(plain, params, episodes), atol=1e-2)


@pytest.mark.parametrize("method", ["protonet", "r2d2", "maml"])
def test_the_gradient_by_strengths_and_count_goes_through_the_adaptation(method: str) -> None:
    """Float64 and finite differences, of all strengths of all augmentations at once."""
    case = copying(method, augment=EVERY)
    params, episodes = case.params(), smooth(case)
    own = [name for name in params if name.startswith("policy.")]
    at = torch.stack([params[name] for name in own]).requires_grad_()

    def loss(values: Tensor) -> Tensor:
        return case.objective({**params, **dict(zip(own, values.unbind(), strict=True))}, episodes, Stage()).loss

    (exact,) = torch.autograd.grad(loss(at), at)
    with torch.no_grad():
        changes = 1e-6 * torch.eye(len(at), dtype=torch.float64)
        measured = torch.stack([(loss(at + change) - loss(at - change)) / 2e-6 for change in changes])
    torch.testing.assert_close(exact, measured, rtol=1e-4, atol=1e-8)
    # Images of one channel have no colour to lose.
    assert {name for name, each in zip(own, exact, strict=True) if each == 0} == {
        "policy.colour.saturation",
        "policy.colour.gray",
    }


def test_an_example_and_its_copies_count_as_one() -> None:
    case = copying("protonet")
    params, episodes = case.params(), smooth(case)
    policy, support = case.learner.support_policy, episodes.support
    (enlarged, counts), count = policy.enlarge(params, support), torch.as_tensor(policy.count(params))
    assert counts is not None
    assert count != 1
    examples = support.x.shape[1]
    parts = counts.unflatten(1, (1 + COPIES, examples))
    torch.testing.assert_close(parts.mean(1), support.mask.double())
    torch.testing.assert_close(parts[1, 1] / parts[1, 0], count.expand(examples))
    for tensor, whole in ((support.y, enlarged.y), (support.mask, enlarged.mask)):
        assert torch.equal(whole, tensor.repeat(1, 1 + COPIES))
    assert torch.equal(enlarged.x[:, :examples], support.x)
    features = case.learner.backbone.apply(params, enlarged.x, case.learner.example_weights(enlarged)).values
    prototypes = case.learner.adapt(params, support).state["prototypes"]
    for task, label in ((0, 0), (1, 2)):
        own = (enlarged.y[task] == label) & enlarged.mask[task]
        weights = counts[task][own] / counts[task][own].sum()
        torch.testing.assert_close(prototypes[task, label], weights @ features[task][own])


def test_a_copy_is_its_example_augmented_by_numbers_of_its_own() -> None:
    case = copying("protonet", "fixed", augment=EVERY)
    episodes = smooth(case)
    support = episodes.support
    enlarged, counts = case.learner.support_policy.enlarge({}, support)
    assert counts is None
    examples = support.x.shape[1]
    keys = example_keys(support.x, support.mask)
    augment = Augment([build_augmentation(name, {}) for name in EVERY.split(",")])
    for copy in range(COPIES):
        for example in (1, 4):
            alone = augment.by_keys(
                support.x[1, example : example + 1], keys_of_sample(keys, 0, copy)[1, example][None]
            )
            torch.testing.assert_close(enlarged.x[1, (1 + copy) * examples + example], alone[0])
    copies = enlarged.x[1, examples:].flatten(1)
    assert torch.pdist(copies).min() > 1e-2


def test_copies_are_made_in_full_precision_where_a_server_computes_in_bfloat16() -> None:
    case = copying("protonet", augment=EVERY)
    params, support = case.params(torch.float32), smooth(case).support.to(torch.float32)
    exact, _ = case.learner.support_policy.enlarge(params, support)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, _ = case.learner.support_policy.enlarge(params, support)
    torch.testing.assert_close(rounded.x, exact.x, rtol=0, atol=1e-5)


def test_a_learned_policy_begins_as_the_fixed_one() -> None:
    fixed, learned = copying("maml", "fixed"), copying("maml")
    params, plain = (case.learner.init(torch.Generator().manual_seed(0)) for case in (learned, fixed))
    assert all(torch.equal(params[name], value) for name, value in plain.items())
    assert {name for name in params if name not in plain} == {name for name in params if name.startswith("policy.")}
    episodes = smooth(fixed).to(torch.float32)
    hard, soft = (case.learner.support_policy.enlarge(params, episodes.support) for case in (fixed, learned))
    assert hard[1] is None
    torch.testing.assert_close(soft[1], episodes.support.mask.float().repeat(1, 1 + COPIES))
    # Erasing that happens with a learned probability is relaxed, and all else is the same.
    assert ((hard[0].x - soft[0].x).abs() < 1e-4).double().mean() > 0.9
    found = learned.learner.support_policy.strengths(params)
    for name, strengths in fixed.learner.support_policy.strengths({}).items():
        for strength, given in strengths.items():
            assert float(found[name][strength]) == pytest.approx(given, rel=1e-6)


def test_strengths_that_are_zero_or_have_no_gradient_are_not_learned() -> None:
    case = copying("protonet", augment="affine?rotation=20&scale=0,flip")
    assert {name for name in case.params() if name.startswith("policy.")} == {
        "policy.affine.rotation",
        "policy.affine.shear",
        "policy.count",
    }
    strong = {name: torch.tensor(100.0) for name in case.params()}
    strengths = case.learner.support_policy.strengths(strong)
    assert {name: float(value) for name, value in strengths["affine"].items()} == pytest.approx(
        {"rotation": 40, "scale": 0, "shear": 0.6}
    )
    assert strengths["flip"] == {"probability": 0.5}


def test_draws_are_uniform_and_independent() -> None:
    generator = torch.Generator().manual_seed(0)
    x, count = torch.rand(2, 3, 6, generator=generator), 2000
    keys = example_keys(x, torch.ones(2, 3, dtype=torch.bool))
    names = ("0.rotation", "0.scale", "1.field")
    draws = torch.cat(
        [
            uniform_draws(keys_of_sample(keys, 0, copy), name, count, torch.float32).flatten(0, 1)
            for copy in range(3)
            for name in names
        ]
    )  # [draws, count]
    assert draws.min() > 0
    assert draws.max() <= 1
    assert draws.mean().item() == pytest.approx(0.5, abs=0.005)
    assert draws.var().item() == pytest.approx(1 / 12, abs=0.002)
    for shift in range(4):  # draws among each other, and each with its own neighbours
        both = torch.cat([draws[:, : count - 3], draws[:, shift : count - 3 + shift]]) if shift else draws
        others = torch.corrcoef(both) - torch.eye(len(both))
        assert others.abs().max() < 5 / count**0.5


def test_who_takes_no_copies_says_so() -> None:
    assert {"protonet", "r2d2", "lr-d2", "anil", "boil", "maml", "meta-sgd"} == CAN
    images = copying("protonet").spec
    for method in sorted({*methods} - CAN):
        with pytest.raises(SettingsError, match=f"{re.escape(method)} takes no augmented copies"):
            build_learner(replace(images, method=method))
    with pytest.raises(SettingsError, match="copies of an example speak for its own label"):
        build_learner(replace(images, weighting="leave_one_out"))
    without_statistics = replace(images, backbone_settings={**images.backbone_settings, "norm": "group"})
    assert "copies of an example depend on all others" in build_learner(without_statistics)._why_not_extended()
    with pytest.raises(SettingsError, match="it augments images, and these inputs are none"):
        build_learner(replace(vector_case("protonet").spec, support_policy="fixed"))
    with pytest.raises(UnknownNameError, match="unknown support policy 'best'; there are: fixed, learned, none"):
        build_learner(replace(images, support_policy="best"))
    for augment, message in {
        "none": "augment names augmentations, each once",
        "affine,affine": "augment names augmentations, each once",
        "blur": "unknown augmentation 'blur'",
        "affine?much=1": "augmentation affine has no setting 'much'",
        "erasing?probability=1": "a learned strength begins below it",
    }.items():
        with pytest.raises(SettingsError, match=message):
            build_learner(replace(images, policy_settings={"augment": augment}))


def test_the_spec_keeps_the_strengths_that_were_usual() -> None:
    drawings = copying("protonet").learner.spec
    assert drawings.policy_settings["augment"] == (
        "affine?rotation=15.0&scale=0.2&shear=0.3,elastic?distance=0.03,stroke?width=0.5,"
        "erasing?probability=0.5&area=0.2"
    )
    assert build_learner(drawings).spec == drawings
    photographs = build_learner(replace(copying("protonet").spec, input=InputSpec((3, 10, 10))))
    assert photographs.support_policy.strengths(photographs.init(torch.Generator())).keys() == {
        "affine",
        "colour",
        "erasing",
    }


def test_bundles_without_a_policy_do_not_speak_of_policies() -> None:
    spec = copying("protonet", "none").spec
    assert not {"support_policy", "policy_settings"} & spec.to_json().keys()
    assert LearnerSpec.from_json(spec.to_json()) == spec
    learned = copying("protonet").spec
    assert LearnerSpec.from_json(learned.to_json()) == learned
    assert list(support_policies) == ["fixed", "learned", "none"]

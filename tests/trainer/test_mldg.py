"""The estimator `mldg` worked out by hand and against finite differences, what it trains, and what it refuses."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import Case
from runs import DIGITS, train, training

from innerloop_learner import Episodes, InputSpec, LearnerSpec, Params
from innerloop_learner.bundle import load_bundle
from innerloop_learner.objectives import Objective, Outcome, Stage
from innerloop_learner.objectives.transformed import Transformed
from innerloop_learner.settings import NoSettings, SettingsError
from innerloop_learner.transformations import build_transformation
from innerloop_trainer.config import ConfigError
from innerloop_trainer.data import DataError
from innerloop_trainer.evaluation import score
from innerloop_trainer.outer_loop import build_estimator
from innerloop_trainer.outer_loop.estimators.mldg import held_out_tasks

RATE, WEIGHT, STAGE = 0.3, 0.7, Stage(seed=5)
DOMAINS = torch.tensor([2, 7, 2, 4])

ROTATED = replace(DIGITS, method="protonet", data="digits?domains=rotation", settings={}, meta_batch=4, train_ways=2)


def smooth_case(method: str, norm: str = "task", **settings: float) -> Case:
    """A method on a network without kinks: where a slope jumps, so does the loss after a step along it."""
    backbone = {"widths": [6, 5], "norm": norm, "activation": "tanh"}
    spec = LearnerSpec(method, InputSpec((4,)), max_ways=4, backbone="mlp", backbone_settings=backbone)
    return Case(replace(spec, settings=settings))


PROTONET = smooth_case("protonet", "batch")


def episodes_of(case: Case) -> Episodes:
    return replace(case.episodes(tasks=len(DOMAINS)), domains=DOMAINS)


def transformed(case: Case) -> Transformed:
    return Transformed(case.objective, build_transformation("feature_wise", case.learner, {}))


def as_doubles(objective: Objective) -> Params:
    return {name: value.double() for name, value in objective.init(torch.Generator()).items()}


class Distance(Objective):
    """The squared distance of a number w to a goal of each task, which is its first query."""

    def __call__(self, params: Params, episodes: Episodes, stage: Stage) -> Outcome:
        del stage
        goals = episodes.query.x.flatten(1)[:, :1]
        return Outcome((params["w"] - goals).square().mean(), (params["w"] - goals).unsqueeze(-1), {})


def test_one_step_by_hand() -> None:
    objective, episodes = Distance(PROTONET.learner, NoSettings()), episodes_of(PROTONET)
    estimator = build_estimator("mldg", objective, {"look_ahead": RATE, "held_out_weight": WEIGHT})
    w = torch.tensor(0.4, dtype=torch.float64)
    found = estimator.estimate({"w": w}, {}, episodes, STAGE)
    held_out = held_out_tasks(episodes, 0.33, STAGE)
    goals = episodes.query.x.flatten(1)[:, 0]
    inside, outside = goals[~held_out].mean(), goals[held_out].mean()
    ahead = w - RATE * 2 * (w - inside)
    expected = 2 * (w - inside) + WEIGHT * 2 * (ahead - outside) * (1 - 2 * RATE)
    torch.testing.assert_close(found.gradients["w"], expected)
    losses = (w - goals[~held_out]).square().mean() + WEIGHT * (ahead - goals[held_out]).square().mean()
    torch.testing.assert_close(found.loss, losses)


def value_of(objective: Objective, params: Params, episodes: Episodes, weight: float) -> tuple[float, float]:
    """F + b G, and G, with the slopes of F by autograd."""
    held_out = held_out_tasks(episodes, 0.33, STAGE)
    constant = objective.learner.buffers() | objective.strengths()
    weights = {name: value.detach().requires_grad_() for name, value in params.items() if name not in constant}
    inside = objective({**params, **weights}, episodes.of_tasks(~held_out), STAGE).loss
    slopes = torch.autograd.grad(inside, list(weights.values()), materialize_grads=True)
    ahead = {name: (w - RATE * slope).detach() for (name, w), slope in zip(weights.items(), slopes, strict=True)}
    outside = objective.plain({**params, **ahead}, episodes.of_tasks(held_out), STAGE).loss.item()
    return inside.item() + weight * outside, outside


def assert_slope(found: Params, value: Any, params: Params) -> None:
    """The gradient agrees with central differences of a function of parameters, along three directions."""
    generator, step = torch.Generator().manual_seed(3), 1e-6
    for _ in range(3):
        along = {name: torch.randn(each.shape, generator=generator).double() for name, each in found.items()}

        def moved(size: float, along: Params = along) -> Params:
            return {name: each + size * along[name] if name in along else each for name, each in params.items()}

        measured = (value(moved(step)) - value(moved(-step))) / (2 * step)
        expected = sum((found[name] * along[name]).sum().item() for name in found)
        assert measured == pytest.approx(expected, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize(
    "case",
    [
        PROTONET,
        smooth_case("maml", steps=2, rate=0.05),
        smooth_case("anil", "none", steps=2, rate=0.05),
        smooth_case("r2d2"),
    ],
    ids=lambda case: case.name,
)
def test_the_gradient_equals_finite_differences_of_both_losses(case: Case) -> None:
    params, episodes = case.params(), episodes_of(case)
    estimator = build_estimator("mldg", case.objective, {"look_ahead": RATE, "held_out_weight": WEIGHT})
    found = estimator.estimate(params, {}, episodes, STAGE).gradients
    assert found.keys() == params.keys() - case.learner.buffers()
    assert_slope(found, lambda moved: value_of(case.objective, moved, episodes, WEIGHT)[0], params)


@pytest.mark.parametrize("weight", [0.0, WEIGHT])
def test_held_out_domains_alone_teach_the_strengths(weight: float) -> None:
    objective = transformed(PROTONET)
    params, episodes = {**PROTONET.params(), **as_doubles(objective)}, episodes_of(PROTONET)
    estimator = build_estimator("mldg", objective, {"look_ahead": RATE, "held_out_weight": weight})
    found = estimator.estimate(params, {}, episodes, STAGE).gradients
    strengths = {name: found[name] for name in objective.strengths()}
    assert_slope(strengths, lambda moved: value_of(objective, moved, episodes, weight)[1], params)
    others = {name: value for name, value in found.items() if name not in strengths}
    assert_slope(others, lambda moved: value_of(objective, moved, episodes, weight)[0], params)
    assert all(value.abs().max() > 1e-5 for value in strengths.values())
    assert estimator.rates() == dict.fromkeys(strengths, 10.0)


def test_other_estimators_leave_the_strengths_as_they_are() -> None:
    objective = transformed(PROTONET)
    params, episodes = {**PROTONET.params(), **as_doubles(objective)}, episodes_of(PROTONET)
    for name, settings in (("backpropagation", {}), ("es", {"population": 2})):
        found = build_estimator(name, objective, settings).estimate(params, {}, episodes, STAGE).gradients
        assert found.keys() == PROTONET.params().keys() - PROTONET.learner.buffers()


@pytest.mark.parametrize(("share", "count"), [(0.0, 1), (0.33, 1), (0.6, 2), (1.0, 2)])
def test_whole_domains_are_held_out_but_neither_none_nor_all(share: float, count: int) -> None:
    episodes, seen = episodes_of(PROTONET), set()
    for seed in range(20):
        held_out = held_out_tasks(episodes, share, Stage(seed=seed))
        assert torch.equal(held_out, held_out_tasks(episodes, share, Stage(seed=seed)))
        chosen = set(DOMAINS[held_out].tolist())
        assert len(chosen) == count
        assert chosen.isdisjoint(DOMAINS[~held_out].tolist())
        seen |= chosen
    assert seen == {2, 4, 7}


def test_outputs_answer_the_tasks_that_they_are_said_to() -> None:
    case = smooth_case("protonet", "task")  # whose tasks are normalised by themselves
    params, episodes = case.params(), episodes_of(case)
    found = build_estimator("mldg", case.objective, {"look_ahead": 0.0}).estimate(params, {}, episodes, STAGE)
    plain = build_estimator("backpropagation", case.objective, {}).estimate(params, {}, episodes, STAGE)
    assert found.answered is not None
    torch.testing.assert_close(score(found.outputs, found.answered).mean(), score(plain.outputs, episodes).mean())
    torch.testing.assert_close(found.outputs.sum(), plain.outputs.sum())


def test_a_run_with_learned_strengths_resumes_to_the_bit_and_serves_without_them(tmp_path: Path) -> None:
    config = replace(ROTATED, estimator="mldg", transform="feature_wise")
    train(config, tmp_path / "stopped", stop_at=7)
    whole, resumed = train(config, tmp_path / "whole"), train(config, tmp_path / "stopped", resume=True)
    states = [run.load_latest(torch.device("cpu"))[0] for run in (whole, resumed)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0] if name != "recent_figures")
    first = training(config, tmp_path / "fresh").plan.init(torch.Generator())
    strengths = [name for name in first if name.startswith("transformation.")]
    assert all(not torch.equal(first[name], states[0][f"parameters.{name}"]) for name in strengths)
    bundle, plain = load_bundle(whole.bundle), load_bundle(train(ROTATED, tmp_path / "plain").bundle)
    assert bundle.params.keys() == plain.params.keys()
    assert bundle.learner.spec == plain.learner.spec


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"data": "digits"}, ConfigError, r"holds out domains, of which digits has none; name them with \?domains="),
        (
            {"data": "sinusoid", "method": "maml", "train_ways": None, "backbone_settings": {}},
            ConfigError,
            "sinusoid has none",
        ),
        ({"meta_batch": 1}, ConfigError, "needs tasks of 2 domains; raise --meta-batch to 2 or more"),
        ({"settings": {"held_out_weight": 0.0}}, SettingsError, "raise it, or add --transform feature_wise"),
        ({"train_ways": 7}, DataError, "no domain has 7 classes .* at most 6; lower --ways or --train-ways to 6"),
        ({"method": "partial-maml", "train_ways": None}, SettingsError, "no gradient reaches the choices"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_what_it_can_not_train_is_refused(
    changes: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        training(replace(ROTATED, estimator="mldg", **changes), tmp_path / "run")


def test_the_usual_meta_batch_has_tasks_of_two_domains(tmp_path: Path) -> None:
    plan = training(replace(ROTATED, estimator="mldg", meta_batch=None, train_ways=None), tmp_path / "run").plan
    assert plan.meta_batch == 2
    assert plan.episodes.ways == 6  # of the usual 60, as many as every domain has

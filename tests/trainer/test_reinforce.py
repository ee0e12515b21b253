"""The estimator `reinforce` against enumeration of all choices, and the learners that it leaves."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import CASES, Case, wave_case
from runs import SINUSOID, train
from torch import Tensor

from innerloop_learner import Episodes, Params, build_learner
from innerloop_learner.bundle import load_bundle
from innerloop_learner.objectives import Stage, build_objective
from innerloop_learner.settings import SettingsError
from innerloop_trainer.outer_loop import Estimate, build_estimator
from innerloop_trainer.outer_loop.estimators import reinforce
from innerloop_trainer.outer_loop.estimators.reinforce import draw, policy_gradient

WAVES = wave_case("partial-maml", [4], {"steps": 2, "rate": 0.05})
IMAGES = next(case for case in CASES if case.name == "partial-maml-classification-task")
CHOICES = sorted(WAVES.learner.choices())
BONUS = 0.3


def params_of(case: Case) -> Params:
    """Parameters whose choices are far from alike."""
    return {name: 8 * value if name in case.learner.choices() else value for name, value in case.params().items()}


def estimate(baseline: float, params: Params, episodes: Episodes, **settings: Any) -> Estimate:
    carried = {"baseline": torch.tensor(baseline, dtype=torch.float64)}
    return build_estimator("reinforce", WAVES.objective, settings).estimate(params, carried, episodes, Stage())


def every_draw(params: Params, tasks: int) -> list[tuple[Params, Tensor]]:
    """All that may be drawn, the same for each task, and how probable it is."""
    options = [torch.eye(len(params[name]), dtype=torch.float64) for name in CHOICES]
    draws = []
    for rows in product(*options):
        chances = [params[name].softmax(0) @ row for name, row in zip(CHOICES, rows, strict=True)]
        drawn = {name: row.expand(tasks, -1) for name, row in zip(CHOICES, rows, strict=True)}
        draws.append((drawn, torch.stack(chances).prod()))
    return draws


@pytest.mark.parametrize("baseline", [0.0, 5.0])
def test_the_expected_gradient_is_that_of_the_expected_loss_whatever_the_baseline(
    baseline: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, episodes = params_of(WAVES), WAVES.episodes(tasks=2)
    found = {name: torch.zeros_like(value) for name, value in params.items()}
    for drawn, chance in every_draw(params, 2):
        monkeypatch.setattr(reinforce, "draw", lambda *_, drawn=drawn: drawn)
        for name, value in estimate(baseline, params, episodes, entropy_bonus=BONUS).gradients.items():
            found[name] += chance * value
    learned = {name: value.clone().requires_grad_() for name, value in params.items()}
    expected = sum(
        chance * WAVES.objective({**learned, **drawn}, episodes, Stage()).loss
        for drawn, chance in every_draw(learned, 2)
    )
    entropies = [-(learned[name].softmax(0) * learned[name].log_softmax(0)).sum() for name in CHOICES]
    gradients = torch.autograd.grad(expected - BONUS * sum(entropies), list(learned.values()))
    for name, gradient in zip(learned, gradients, strict=True):
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12)
    assert all(found[name].abs().max() > 1e-3 for name in CHOICES)


def test_the_entropy_bonus_pulls_towards_options_alike() -> None:
    logits = torch.tensor([2.0, 0.0, -1.0], dtype=torch.float64, requires_grad=True)
    entropy = -(logits.softmax(0) * logits.log_softmax(0)).sum()
    (expected,) = torch.autograd.grad(-BONUS * entropy, logits)
    found = policy_gradient(logits.detach(), torch.eye(3).double(), torch.zeros(3).double(), BONUS)
    torch.testing.assert_close(found, expected)


def test_options_are_drawn_as_often_as_they_are_probable_and_by_seed() -> None:
    logits = {"choice.steps": torch.tensor([1.0, 0.0, -1.0])}
    once, again, other = (draw(logits, 20_000, Stage(seed=seed))["choice.steps"] for seed in (1, 1, 2))
    torch.testing.assert_close(once.mean(0), logits["choice.steps"].softmax(0), rtol=0, atol=0.015)
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_the_baseline_follows_the_losses_and_starts_with_the_first() -> None:
    params, episodes = params_of(WAVES), WAVES.episodes()
    first = estimate(torch.nan, params, episodes)
    assert first.carried["baseline"] == pytest.approx(first.loss.item())
    assert all(value.isfinite().all() for value in first.gradients.values())
    later = estimate(2.0, params, episodes, baseline_share=0.75)
    assert later.carried["baseline"] == pytest.approx(1.5 + 0.25 * later.loss.item())


@pytest.mark.parametrize("drawn", [(0, 0, 1), (0, 1, 0), (1, 0, 1), (1, 1, 1)], ids=str)
def test_tasks_of_a_batch_adapt_by_their_own_choices(drawn: tuple[int, ...]) -> None:
    params, support = params_of(WAVES), WAVES.episodes(tasks=2).support
    own, other = (dict(zip(CHOICES, options, strict=True)) for options in (drawn, (1, 1, 0)))
    together = {name: torch.eye(2).double()[[own[name], other[name]]] for name in CHOICES}
    alone = {name: torch.eye(2).double()[own[name]] for name in CHOICES}
    with torch.no_grad():
        both = WAVES.learner.adapt({**params, **together}, support).state
        expected = WAVES.learner.adapt({**params, **alone}, support).state
    assert all(torch.equal(both[name][0], expected[name][0]) for name in expected)


@pytest.mark.parametrize(
    ("method", "moves"),
    [("maml", {"block0", "block1", "block2", "block3", "head"}), ("anil", {"head"}), ("boil", {"block0"})],
)
@pytest.mark.parametrize("steps", [1, 2])
def test_a_settled_learner_answers_as_chosen(method: str, moves: set[str], steps: int) -> None:
    episodes, generator = IMAGES.episodes(), torch.Generator().manual_seed(0)
    params = {name: value.double() for name, value in IMAGES.learner.init(generator).items()}
    for name in IMAGES.learner.choices():
        chosen = steps - 1 if name == "choice.steps" else int(name.removeprefix("choice.") in moves)
        params[name] = torch.eye(2).double()[chosen]
    learner = IMAGES.learner.settled(params)
    assert learner.default_steps == steps
    assert not learner.choices()
    assert learner.settled(params) is learner
    served = {name: params[name] for name in learner.init(torch.Generator())}
    with torch.no_grad():
        state = learner.adapt(served, episodes.support).state
        chosen, settled = (
            each.predict(given, each.adapt(given, episodes.support).state, episodes.query)
            for each, given in ((IMAGES.learner, params), (learner, served))
        )
        # Logits may be shifted by what they tell of how familiar a query is; probabilities are not.
        torch.testing.assert_close(settled.softmax(-1), chosen.softmax(-1))
        if method != "boil":  # which adapts the whole body
            plain = build_learner(replace(IMAGES.spec, method=method))
            expected = plain.adapt(served, episodes.support, steps)
            assert expected.state.keys() == state.keys()
            torch.testing.assert_close(settled, plain.predict(served, expected.state, episodes.query))
    assert any(name.startswith("weights.head") for name in state) == ("head" in moves)


def test_the_head_adapts_where_no_block_was_chosen() -> None:
    params = {name: torch.eye(2)[0] for name in WAVES.learner.choices()}
    assert WAVES.learner.settled(params).spec.settings["adapts"] == ["head"]


def test_a_bundle_holds_a_fixed_choice(tmp_path: Path) -> None:
    config = replace(SINUSOID, method="partial-maml", iterations=2, validate_every=2)
    run = train(config, tmp_path / "run")
    bundle = load_bundle(run.bundle)
    assert not [name for name in bundle.params if name.startswith("choice.")]
    assert bundle.learner.spec.settings["adapts"]
    assert bundle.manifest.limits.trained_steps == bundle.learner.default_steps


def test_choices_are_refused_where_nothing_learns_them_and_missed_where_there_are_none() -> None:
    with pytest.raises(SettingsError, match="no gradient reaches the choices of partial-maml; take --estimator rein"):
        build_estimator("backpropagation", WAVES.objective, {})
    fixed = wave_case("partial-maml", [4], {"adapts": ["head"]}).objective
    build_estimator("backpropagation", fixed, {})
    for objective in (fixed, build_objective(wave_case("maml", [4], {}).learner)):
        with pytest.raises(SettingsError, match="has no choices to learn; take --estimator backpropagation"):
            build_estimator("reinforce", objective, {})


def test_a_block_that_is_not_there_is_refused() -> None:
    with pytest.raises(SettingsError, match="there is no block7 to adapt, only block0, head"):
        wave_case("partial-maml", [4], {"adapts": ["block7"]}).learner  # noqa: B018

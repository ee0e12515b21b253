"""The estimator `es`: where its gradients point, and what it copes with."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from cases import CASES, Case, wave_case
from torch import Tensor

from innerloop_learner import Episodes, InputSpec, LearnerSpec, Params
from innerloop_learner.objectives import Objective, Outcome, Stage, build_objective
from innerloop_learner.population import evaluate_population
from innerloop_learner.settings import SettingsError
from innerloop_trainer.outer_loop import Estimate, Estimator, build_estimator
from innerloop_trainer.outer_loop.estimators.es import centred_ranks

WAVES = wave_case("maml", [6], {"steps": 2, "rate": 0.05})


def evolution(objective: Objective = WAVES.objective, **settings: Any) -> Estimator:
    return build_estimator("es", objective, settings)


def estimate(estimator: Estimator, case: Case = WAVES, seed: int = 0) -> Estimate:
    return estimator.estimate(case.params(), {}, case.episodes(), Stage(seed=seed))


def flat(gradients: Params) -> Tensor:
    return torch.cat([gradients[name].flatten() for name in sorted(gradients)])


def test_the_gradient_points_where_backpropagation_points() -> None:
    found = flat(estimate(evolution(sigma=0.001, population=1000)).gradients)
    exact = flat(estimate(build_estimator("backpropagation", WAVES.objective, {})).gradients)
    # 19 weights and 500 pairs: the expected cosine is about sqrt(500 / 519), less what ranks lose.
    assert torch.cosine_similarity(found, exact, dim=0) > 0.95


def test_a_seed_gives_the_same_gradient_and_another_seed_another() -> None:
    once, again, other = (flat(estimate(evolution(population=4), seed=seed).gradients) for seed in (1, 1, 2))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


NORMED = Case(LearnerSpec("maml", InputSpec((5,)), max_ways=3, backbone="mlp", backbone_settings={"norm": "task"}))
SIDE_BY_SIDE = [NORMED, *(case for case in CASES if case.spec.backbone != "conv4")]


@pytest.mark.parametrize("case", SIDE_BY_SIDE, ids=lambda case: case.name)
def test_a_population_gives_what_each_member_alone_gives(case: Case) -> None:
    episodes, generator = case.episodes(tasks=2), torch.Generator().manual_seed(3)
    population = {
        name: value + 0.02 * torch.randn(3, *value.shape, generator=generator).abs()
        for name, value in case.params().items()
    }

    def loss(member: Params) -> Params:
        return {"loss": case.objective(member, episodes, Stage(0.5)).loss}

    together = evaluate_population(loss, population)["loss"]
    with torch.no_grad():
        alone = [loss({name: value[member] for name, value in population.items()})["loss"] for member in range(3)]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-9, atol=1e-12)


def test_convolutions_are_trained_too() -> None:
    case = next(case for case in CASES if case.name == "maml-classification-batch")
    found = estimate(evolution(case.objective, population=2), case)
    assert found.gradients.keys() == case.params().keys() - case.learner.buffers()
    assert found.buffers.keys() == case.learner.buffers()
    assert all(value.shape == case.params()[name].shape for name, value in found.gradients.items())


@dataclass
class Losses(Objective):
    """A loss that is no smooth function of the parameters."""

    inner: Objective
    of: Any

    def __post_init__(self) -> None:
        super().__init__(self.inner.learner, None)

    def __call__(self, params: Params, episodes: Episodes, stage: Stage) -> Outcome:
        return self.of(self.inner(params, episodes, stage))


def test_a_loss_without_a_gradient_is_lowered() -> None:
    def accuracy(outcome: Outcome) -> Outcome:
        return outcome._replace(loss=(outcome.outputs.detach() > 0.3).double().mean())

    counted = Losses(WAVES.objective, accuracy)
    params, episodes = WAVES.params(), WAVES.episodes()
    gradients = evolution(counted, sigma=0.1, population=200).estimate(params, {}, episodes, Stage()).gradients
    moved = {name: value - 2 * gradients[name] / flat(gradients).norm() for name, value in params.items()}
    assert counted(moved, episodes, Stage()).loss < counted(params, episodes, Stage()).loss


def test_copies_that_diverge_are_the_worst_and_no_more() -> None:
    assert centred_ranks(torch.tensor([2.0, torch.nan, 1.0])).tolist() == [0.0, 0.5, -0.5]

    def sometimes(outcome: Outcome) -> Outcome:
        return outcome._replace(loss=torch.where(outcome.loss > outcome.loss.floor() + 0.1, outcome.loss, torch.nan))

    assert flat(estimate(evolution(Losses(WAVES.objective, sometimes), population=16)).gradients).isfinite().all()


def test_a_loss_that_says_nothing_moves_nothing() -> None:
    def constant(outcome: Outcome) -> Outcome:
        return outcome._replace(loss=torch.zeros_like(outcome.loss))

    assert not flat(estimate(evolution(Losses(WAVES.objective, constant), population=8)).gradients).any()


def test_a_population_without_pairs_is_refused() -> None:
    with pytest.raises(SettingsError, match="population must be even, since copies come in pairs, not 5"):
        evolution(build_objective(WAVES.learner), population=5)

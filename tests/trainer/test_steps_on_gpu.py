"""Outer steps on a GPU: none waits for it, and replayed ones give what steps one by one do."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cases import CASES, Case
from runs import DIGITS

from innerloop_learner.acceleration import accelerated
from innerloop_learner.objectives import Stage, build_objective
from innerloop_learner.precision import tf32_allowed
from innerloop_trainer.config import TrainingConfig
from innerloop_trainer.data import AugmentedTasks, EpisodeShape, load_source, read_augmentations
from innerloop_trainer.outer_loop import OptimizerPlan, OuterLoop, Replayed, build_estimator, defaults_of
from innerloop_trainer.outer_loop.replay import WARM_UP
from innerloop_trainer.plan import make_plan
from innerloop_trainer.runs.conduct import Conduct
from innerloop_trainer.runs.folder import RunFolder
from innerloop_trainer.runs.log import read_rows
from innerloop_trainer.runs.training import Training
from innerloop_trainer.seeds import generator_for

pytestmark = pytest.mark.cuda

GPU = torch.device("cuda")
STEPS = WARM_UP + 5
NAMES = (
    "maml-classification-task",
    "maml-classification-batch",
    "maml-classification-task-learned-policy",
    "maml++-classification-task",
    "meta-sgd-classification-task",
    "anil-classification-task",
    "imaml-classification-task",
    "reptile-classification-task",
    "protonet-classification-batch-resnet12",
    "r2d2-classification-task",
    "snail-classification-task",
)
"""Names of representative cases whose steps can be recorded."""


@pytest.fixture(params=NAMES)
def case(request: pytest.FixtureRequest) -> Case:
    return next(case for case in CASES if case.name == request.param)


def steps(case: Case, *, replay: bool) -> tuple[OuterLoop, list[float]]:
    """A loop after some steps that were not allowed to wait, and the losses."""
    objective = build_objective(accelerated(case.learner, GPU), case.training)
    estimator = build_estimator(defaults_of(case.spec.method).estimator, objective, {})
    params = {name: value.to(GPU) for name, value in case.params(torch.float32).items()}
    loop, losses = OuterLoop(estimator, params, OptimizerPlan(100, 0.001, 10.0), seed=0, replay=replay), []
    batches = [case.episodes(tasks=2, seed=seed).to(GPU, torch.float32) for seed in range(STEPS)]
    for iteration, episodes in enumerate(batches):
        # Kernels that are loaded, and a graph that is recorded, are waited for once.
        torch.cuda.set_sync_debug_mode("default" if iteration <= WARM_UP else "error")
        try:
            losses.append(loop.step(episodes, iteration).loss.clone())
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return loop, torch.stack(losses).tolist()


def test_replayed_steps_wait_for_nothing_and_are_those_taken_one_by_one(case: Case) -> None:
    loop, losses = steps(case, replay=True)
    assert loop.replayed is not None
    assert loop.replayed.recorded, loop.replayed.take_notice()
    _, expected = steps(case, replay=False)
    assert losses == pytest.approx(expected, rel=1e-3)  # sums on a GPU come in any order
    assert losses[-1] != losses[-2]


@pytest.mark.parametrize("augment", [None, "affine,elastic,stroke"])
def test_replayed_draws_are_those_of_fresh_generators_to_the_bit(augment: str | None) -> None:
    sampler = load_source("digits", GPU).train
    if augment is not None:
        sampler = AugmentedTasks(sampler, read_augmentations(augment))
    shape, generator = EpisodeShape(4, 1, 3), torch.Generator(GPU)
    draw = Replayed("draws", lambda _: sampler.sample(shape, 8, generator), GPU, [generator])
    for seed in range(STEPS):
        generator.manual_seed(seed)
        found, expected = draw(Stage()), sampler.sample(shape, 8, torch.Generator(GPU).manual_seed(seed))
        assert torch.equal(found.support.x, expected.support.x)
        assert torch.equal(found.query.x, expected.query.x)
        assert torch.equal(found.targets, expected.targets)
    assert draw.recorded, draw.take_notice()


def run(config: TrainingConfig, folder: Path, *, replay: bool) -> list[float]:
    plan = make_plan(config, load_source(config.data, GPU), GPU)
    initial = plan.init(generator_for(config.seed, "initialisation"))
    Training(plan, RunFolder(folder), GPU, initial, conduct=Conduct(replay=replay)).run(lambda _: None, lambda: False)
    return [row.loss for row in read_rows(RunFolder(folder).log)]


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_a_run_that_replays_trains_as_one_that_does_not(precision: str, tmp_path: Path) -> None:
    config = replace(DIGITS, precision=precision)
    found, expected = (run(config, tmp_path / str(replay), replay=replay) for replay in (True, False))
    assert found == pytest.approx(expected, rel=0.02)


def test_products_round_only_where_they_may() -> None:
    a, b = (torch.randn(512, 512, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    exact = a.double() @ b.double()

    def error() -> float:
        return ((a.to(GPU) @ b.to(GPU)).cpu().double() - exact).abs().max().item()

    with tf32_allowed(False):
        assert error() < 1e-3
    with tf32_allowed(True):
        assert error() > 1e-3

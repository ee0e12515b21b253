"""REINFORCE for discrete choices: which blocks of a network adapt, and for how many steps.

`partial-maml` on Conv4 with 8 channels, up to 3 steps, 5-way 1-shot on Omniglot with the split `random`. Every side
sees the same tasks with the same settings, none of which was tuned for it: REINFORCE; ANIL with all steps; a choice
drawn uniformly for each seed and fixed from the start, trained by backpropagation; and as a control REINFORCE that is
told the loss of another task. Accuracies are those of what would be served, on the same episodes of unseen characters.
"""

import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor
from waves import summary

from innerloop_learner import Learner, LearnerSpec, Params, build_learner
from innerloop_learner.acceleration import accelerated
from innerloop_learner.objectives import Stage, build_objective
from innerloop_trainer.data import DataSource, EpisodeShape, load_source
from innerloop_trainer.evaluation import evaluate
from innerloop_trainer.outer_loop import OptimizerPlan, OuterLoop, build_estimator
from innerloop_trainer.outer_loop.estimators import reinforce
from innerloop_trainer.outer_loop.estimators.reinforce import draw, policy_gradient
from innerloop_trainer.seeds import generator_for

SEEDS = 5
STEPS, RATE = 3, 0.2
ITERATIONS, TASKS, LEARNING_RATE = 400, 8, 0.004
TRAINING, TEST, EPISODES = EpisodeShape(5, 1, 3), EpisodeShape(5, 1, 15), 600
PLAN = OptimizerPlan(ITERATIONS, LEARNING_RATE, gradient_clip=10.0)
SIDES = ("reinforce", "anil", "random", "control")
WITHIN_FIVE = 2.776
"""Half width of a 95% interval of the mean of five values, in standard errors (Student's t)."""


class Run(NamedTuple):
    """What a run of one side and seed led to.

    Attributes:
        adapts: blocks that adapt.
        steps: number of inner steps.
        seconds: processor time of training.
        accuracies: of each test episode, [E].
    """

    adapts: list[str]
    steps: int
    seconds: float
    accuracies: Tensor


def measure_choices(omniglot: str, processes: int) -> dict[str, Any]:
    """What each side chose, its accuracies, and how far REINFORCE is ahead of the others."""
    _source(omniglot)  # is read once, and inherited by the processes
    jobs = [(side, seed) for seed in range(SEEDS) for side in SIDES]
    with ProcessPoolExecutor(processes, get_context("fork"), torch.set_num_threads, (1,)) as pool:
        found = [pool.submit(_run, omniglot, side, seed) for side, seed in jobs]
        runs = {job: run.result() for job, run in zip(jobs, found, strict=True)}
    return {
        "tasks": ITERATIONS * TASKS,
        "test": {side: _over_seeds([runs[side, seed].accuracies for seed in range(SEEDS)]) for side in SIDES},
        "ahead": {
            side: _over_seeds([runs["reinforce", s].accuracies - runs[side, s].accuracies for s in range(SEEDS)])
            for side in SIDES[1:]
        },
        "seeds": [{side: _figures(runs, side, seed) for side in SIDES} for seed in range(SEEDS)],
    }


def _over_seeds(values: list[Tensor]) -> dict[str, float]:
    """Mean of the seeds' means, and its 95% confidence interval over seeds."""
    means = torch.stack([each.mean() for each in values])
    return {"mean": means.mean().item(), "confidence_interval": WITHIN_FIVE * means.std().item() / len(means) ** 0.5}


def _figures(runs: Mapping[tuple[str, int], Run], side: str, seed: int) -> dict[str, Any]:
    run, of_reinforce = runs[side, seed], runs["reinforce", seed].accuracies
    return {
        "adapts": run.adapts,
        "steps": run.steps,
        "seconds": run.seconds,
        "accuracy": summary(run.accuracies),
        "reinforce_ahead": summary(of_reinforce - run.accuracies),
    }


@cache
def _source(omniglot: str) -> DataSource:
    return load_source(f"omniglot:{omniglot}?split=random")


def _run(omniglot: str, side: str, seed: int) -> Run:
    source = _source(omniglot)
    learner = _learner(source, side)
    if side == "random":
        learner = learner.settled(_any_choice(learner, seed))
    of_choices = bool(learner.choices())
    estimator = build_estimator("reinforce" if of_choices else "backpropagation", build_objective(learner), {})
    loop = OuterLoop(estimator, learner.init(generator_for(seed, "initialisation")), PLAN, seed)
    told = _of_another_task if side == "control" else policy_gradient
    began = time.process_time()
    with patch.object(reinforce, "policy_gradient", told):
        for iteration in range(ITERATIONS):
            loop.step(source.train.sample(TRAINING, TASKS, generator_for(seed, "training", iteration)), iteration)
    seconds = time.process_time() - began
    served = learner.settled(loop.params)
    accuracies = evaluate(served, loop.params, source.test, TEST, split="test", episodes=EPISODES).values
    adapts = ["head"] if side == "anil" else list(served.settings.adapts)  # type: ignore[attr-defined]
    return Run(adapts, served.default_steps, seconds, accuracies)


def _learner(source: DataSource, side: str) -> Learner:
    spec = LearnerSpec(
        "anil" if side == "anil" else "partial-maml",
        source.input,
        max_ways=5,
        backbone_settings={"width": 8, "downsample": "stride", "norm": "task"},
        settings={"steps": STEPS, "rate": RATE},
    )
    return accelerated(build_learner(spec), "cpu", task_convolution="grouped")  # the fastest one with few channels


def _any_choice(learner: Learner, seed: int) -> Params:
    """A choice among all, each of them as probable as another."""
    start = learner.init(generator_for(seed, "initialisation"))
    alike = {name: torch.zeros_like(start[name]) for name in sorted(learner.choices())}
    return {name: drawn[0] for name, drawn in draw(alike, 1, Stage(seed=seed)).items()}


def _of_another_task(logits: Tensor, drawn: Tensor, advantages: Tensor, entropy_bonus: float) -> Tensor:
    """The gradient of losses that have nothing to do with what was drawn."""
    return policy_gradient(logits, drawn, advantages.roll(1), entropy_bonus)

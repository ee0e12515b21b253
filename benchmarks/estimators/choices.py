"""REINFORCE for discrete choices: which blocks of a network adapt, and for how many steps.

`partial-maml` with up to 3 steps, on two kinds of tasks. `characters`: Conv4 with 8 channels, 5-way 1-shot, Omniglot
with the split `random`. `waves`: the network and the sine waves of `waves.py`. Every side sees the same tasks with the
same settings, none of which was tuned for it: REINFORCE; ANIL and MAML, which are among its choices, with all steps; a
choice drawn uniformly for each seed and fixed from the start, trained by backpropagation; and as a control REINFORCE
that is told the loss of another task. Figures are those of what would be served, on the same episodes of unseen classes
or waves.

`fixed` looks for a reason where REINFORCE is behind ANIL: ANIL, and a choice that REINFORCE likes, both trained by
backpropagation on twice as many tasks of characters, and compared on the way by the losses of the training tasks, which
are what REINFORCE sees, and by accuracy on validation characters.
"""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import waves
from intervals import half_width
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

SEEDS, STEPS, TASKS = 5, 3, 8
SIDES = ("reinforce", "anil", "maml", "random", "control")

LIKED, FIXED_ITERATIONS, FIXED_EPISODES = ("block2", "block3", "head"), 800, 300
LOOKED_AT = (100, 200, 400, 800)
"""Outer steps after which fixed choices are compared; losses are means over the steps since the one before."""


@dataclass(frozen=True)
class Case:
    """Tasks to choose for.

    Attributes:
        source: where they come from; {omniglot} stands for the folder.
        training, test: shape of the episodes.
        episodes: number of test episodes.
        plan: what changes the meta-parameters.
        rate: inner learning rate.
        better: 1 where a larger figure is better, as with accuracy, and -1 where a smaller one is, as with errors.
    """

    source: str
    training: EpisodeShape
    test: EpisodeShape
    episodes: int
    plan: OptimizerPlan
    rate: float
    better: int


CASES = {
    "characters": Case(
        "omniglot:{omniglot}?split=random",
        EpisodeShape(5, 1, 3),
        EpisodeShape(5, 1, 15),
        600,
        OptimizerPlan(400, 0.004, gradient_clip=10.0),
        rate=0.2,
        better=1,
    ),
    "waves": Case(
        "sinusoid",
        waves.TRAINING,
        waves.TEST,
        waves.EPISODES,
        OptimizerPlan(3000, 0.003, waves.GRADIENT_CLIP),
        rate=0.01,
        better=-1,
    ),
}


class Run(NamedTuple):
    """What a run of one side and seed led to.

    Attributes:
        adapts: blocks that adapt.
        steps: number of inner steps.
        seconds: processor time of training.
        values: accuracy or mean squared error of each test episode, [E].
    """

    adapts: list[str]
    steps: int
    seconds: float
    values: Tensor


def measure_choices(omniglot: str, processes: int) -> dict[str, Any]:
    """What each side chose, what it reaches, and how far REINFORCE is ahead of the others; and fixed choices."""
    for case in CASES.values():
        _source(case, omniglot)  # is read once, and inherited by the processes
    with ProcessPoolExecutor(processes, get_context("fork"), torch.set_num_threads, (1,)) as pool:
        jobs = [(name, side, seed) for name in CASES for seed in range(SEEDS) for side in SIDES]
        runs = dict(zip(jobs, pool.map(_run, [omniglot] * len(jobs), *zip(*jobs, strict=True)), strict=True))
        fixed = [pool.submit(_on_the_way, omniglot, side, seed) for seed in range(SEEDS) for side in ("liked", "anil")]
        found = [each.result() for each in fixed]
    of_cases = {
        name: _figures(case, {job[1:]: run for job, run in runs.items() if job[0] == name})
        for name, case in CASES.items()
    }
    return {**of_cases, "fixed": _compared(found[::2], found[1::2])}


def _figures(case: Case, runs: Mapping[tuple[str, int], Run]) -> dict[str, Any]:
    values = {side: torch.stack([runs[side, seed].values for seed in range(SEEDS)]) for side in SIDES}  # [seeds, E]
    ahead = {side: case.better * (values["reinforce"] - values[side]) for side in SIDES}
    seeds = [
        {
            side: {
                "adapts": runs[side, seed].adapts,
                "steps": runs[side, seed].steps,
                "seconds": runs[side, seed].seconds,
                "test": summary(values[side][seed]),
                "reinforce_ahead": summary(ahead[side][seed]),
            }
            for side in SIDES
        }
        for seed in range(SEEDS)
    ]
    return {
        "tasks": case.plan.iterations * TASKS,
        "test": {side: _over_seeds(values[side].mean(1)) for side in SIDES},
        "ahead": {side: _over_seeds(ahead[side].mean(1)) for side in SIDES if side != "reinforce"},
        "seeds": seeds,
    }


def _over_seeds(values: Tensor) -> dict[str, float]:
    """Mean of a value of each seed, and its 95% confidence interval over seeds."""
    return {"mean": values.mean().item(), "confidence_interval": half_width(values.tolist())}


@cache
def _source(case: Case, omniglot: str) -> DataSource:
    return load_source(case.source.format(omniglot=omniglot))


def _run(omniglot: str, name: str, side: str, seed: int) -> Run:
    case = CASES[name]
    source = _source(case, omniglot)
    learner = _learner(case, source, side if side in ("anil", "maml") else "partial-maml")
    if side == "random":
        learner = learner.settled(_any_choice(learner, seed))
    estimator = build_estimator("reinforce" if learner.choices() else "backpropagation", build_objective(learner), {})
    loop = OuterLoop(estimator, learner.init(generator_for(seed, "initialisation")), case.plan, seed)
    told = _of_another_task if side == "control" else policy_gradient
    began = time.process_time()
    with patch.object(reinforce, "policy_gradient", told):
        for iteration in range(case.plan.iterations):
            loop.step(source.train.sample(case.training, TASKS, generator_for(seed, "training", iteration)), iteration)
    seconds = time.process_time() - began
    served = learner.settled(loop.params)
    values = evaluate(served, loop.params, source.test, case.test, split="test", episodes=case.episodes).values
    return Run(list(getattr(served.settings, "adapts", [])), served.default_steps, seconds, values)


def _learner(case: Case, source: DataSource, method: str, **settings: Any) -> Learner:
    settings = {"steps": STEPS, "rate": case.rate, **settings}
    if case is CASES["waves"]:
        return waves.learner(method, **settings)
    network = {"width": 8, "downsample": "stride", "norm": "task"}
    spec = LearnerSpec(method, source.input, max_ways=5, backbone_settings=network, settings=settings)
    return accelerated(build_learner(spec), "cpu", task_convolution="grouped")  # the fastest one with few channels


def _any_choice(learner: Learner, seed: int) -> Params:
    """A choice among all, each of them as probable as another."""
    start = learner.init(generator_for(seed, "initialisation"))
    alike = {name: torch.zeros_like(start[name]) for name in sorted(learner.choices())}
    return {name: drawn[0] for name, drawn in draw(alike, 1, Stage(seed=seed)).items()}


def _of_another_task(logits: Tensor, drawn: Tensor, advantages: Tensor, entropy_bonus: float) -> Tensor:
    """The gradient of losses that have nothing to do with what was drawn."""
    return policy_gradient(logits, drawn, advantages.roll(1), entropy_bonus)


def _on_the_way(omniglot: str, side: str, seed: int) -> Tensor:
    """Mean training loss and validation accuracy of a fixed choice at each of LOOKED_AT, [2, L]."""
    case = CASES["characters"]
    source = _source(case, omniglot)
    learner = (
        _learner(case, source, "partial-maml", adapts=LIKED) if side == "liked" else _learner(case, source, "anil")
    )
    plan = OptimizerPlan(FIXED_ITERATIONS, case.plan.learning_rate, case.plan.gradient_clip)
    estimator = build_estimator("backpropagation", build_objective(learner), {})
    loop = OuterLoop(estimator, learner.init(generator_for(seed, "initialisation")), plan, seed)
    losses, found = [], []
    for iteration in range(FIXED_ITERATIONS):
        drawn = source.train.sample(case.training, TASKS, generator_for(seed, "training", iteration))
        losses.append(loop.step(drawn, iteration).loss.item())
        if iteration + 1 in LOOKED_AT:
            values = evaluate(
                learner, loop.params, source.validation, case.test, split="validation", episodes=FIXED_EPISODES
            ).values
            found.append(torch.stack([torch.tensor(losses).mean(), values.mean()]))
            losses = []
    return torch.stack(found, 1)


def _compared(liked: Sequence[Tensor], anil: Sequence[Tensor]) -> dict[str, Any]:
    """The mean losses and accuracies of both choices after outer steps, and how much more the liked one has."""
    both = {"liked": torch.stack(list(liked)), "anil": torch.stack(list(anil))}  # [seeds, 2, L]
    more = both["liked"] - both["anil"]
    return {
        "liked": list(LIKED),
        **{
            str(steps): {
                figure: {
                    **{side: values[:, row, place].mean().item() for side, values in both.items()},
                    "more": _over_seeds(more[:, row, place]),
                }
                for row, figure in enumerate(("loss", "accuracy"))
            }
            for place, steps in enumerate(LOOKED_AT)
        },
    }

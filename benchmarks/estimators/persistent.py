"""Persistent evolution strategies: a learned optimizer that is trained on unrolls of 1,000 steps.

`lstm-optimizer` with 4 units, trained on its own: from fresh random weights in every unroll, on sine waves of ten
examples and a network with 10 units. Ten steps are unrolled per outer step, so an unroll takes a hundred of these. The
control forgets the perturbations of earlier outer steps: truncated evolution, otherwise the same. Gradient descent's
rate is the one that does best on validation waves. The figure is the mean squared error of the queries, averaged over
all 1,000 steps, on 600 unseen waves from one random start; pairs are by wave.
"""

import time
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from waves import SOURCE, TRAINING, learner, summary

from innerloop_learner import Learner, Params
from innerloop_learner.losses import task_loss
from innerloop_learner.objectives import build_objective
from innerloop_learner.objectives.every_step import task_states
from innerloop_trainer.outer_loop import OptimizerPlan, OuterLoop, build_estimator
from innerloop_trainer.outer_loop.estimators import pes
from innerloop_trainer.outer_loop.estimators.pes import Partial
from innerloop_trainer.seeds import generator_for

STEPS = 1000
UNROLLS, TASKS, EPISODES = (4, 8), 4, 600
RATES = (0.003, 0.01, 0.03, 0.1)


def measure_persistent() -> dict[str, Any]:
    """Errors over an unroll of each optimizer."""
    learned = _learner("lstm-optimizer", hidden=4, rate=0.01)
    start = learned.init(generator_for(0, "initialisation"))
    by_descent = {rate: _learner("maml", rate=rate) for rate in RATES}
    best = min(RATES, key=lambda rate: _errors(by_descent[rate], start, "validation").nan_to_num(torch.inf).mean())
    return {
        "steps": STEPS,
        "rate_of_descent": best,
        "untrained": summary(_errors(learned, start, "test")),
        "gradient descent": summary(_errors(by_descent[best], start, "test")),
        "unrolls": {str(unrolls): _trained(learned, start, unrolls) for unrolls in UNROLLS},
    }


def _trained(learned: Learner, start: Params, unrolls: int) -> dict[str, Any]:
    """Errors after training by persistent evolution, and by the truncated one, for a number of unrolls."""
    began = time.perf_counter()
    persistent = _errors(learned, _train(learned, start, unrolls), "test")
    seconds = time.perf_counter() - began
    with patch.object(pes, "persistent_step", _forgetting(pes.persistent_step)):
        truncated = _errors(learned, _train(learned, start, unrolls), "test")
    return {
        "seconds": seconds,
        "pes": summary(persistent),
        "truncated": summary(truncated),
        "truncated_more_than_pes": summary(truncated - persistent),
    }


def _learner(method: str, **settings: float) -> Learner:
    return learner(method, widths=(10,), activation="tanh", steps=STEPS, max_steps=STEPS, **settings)


def _train(learned: Learner, start: Params, unrolls: int) -> Params:
    estimator = build_estimator("pes", build_objective(learned, {"initialisation": "random"}), {"population": 32})
    iterations = unrolls * STEPS // 10
    loop = OuterLoop(estimator, start, OptimizerPlan(iterations, learning_rate=0.01, gradient_clip=1.0), seed=0)
    for iteration in range(iterations):
        loop.step(SOURCE.train.sample(TRAINING, TASKS, generator_for(0, "training", iteration)), iteration)
    return loop.params


def _forgetting(step: Any) -> Any:
    """Partial unrolls whose gradient knows the latest perturbations only."""

    def forgetful(advance: Any, params: Params, states: Params, totals: Params, noise: Params, sigma: float) -> Partial:
        zeros = {name: torch.zeros_like(value) for name, value in totals.items()}
        done: Partial = step(advance, params, states, zeros, noise, sigma)
        return done

    return forgetful


@torch.no_grad()
def _errors(learner: Learner, params: Params, split: str) -> Tensor:
    """Mean over all steps of the squared error of each wave's queries, [E]."""
    waves = getattr(SOURCE, split).sample(TRAINING, EPISODES, generator_for(1, split))
    states = task_states(learner, params, waves.support, 1)
    return torch.stack(
        [
            task_loss("regression", learner.predict(params, state, waves.query), waves.targets, waves.query.mask)
            for state in states
        ]
    ).mean(0)

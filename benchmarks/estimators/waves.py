"""Meta-training on sine waves with an estimator, and errors on unseen waves."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from innerloop_learner import InputSpec, Learner, LearnerSpec, Params, build_learner
from innerloop_learner.objectives import build_objective
from innerloop_trainer.data import EpisodeShape, load_source
from innerloop_trainer.evaluation import evaluate
from innerloop_trainer.outer_loop import Estimator, OptimizerPlan, OuterLoop, build_estimator
from innerloop_trainer.seeds import generator_for

SOURCE = load_source("sinusoid")
TRAINING, TEST = EpisodeShape(1, 10, 10), EpisodeShape(1, 10, 50)
TASKS = 8
"""Waves per outer step."""

EPISODES = 1000
GRADIENT_CLIP = 10.0


def learner(
    method: str = "maml", widths: Sequence[int] = (20, 20), activation: str = "relu", **settings: float
) -> Learner:
    """A method on a small network, which has 481 weights unless it is said otherwise."""
    spec = LearnerSpec(
        method,
        InputSpec((1,)),
        "regression",
        max_ways=0,
        target_size=1,
        backbone="mlp",
        backbone_settings={"widths": [*widths], "activation": activation},
        settings=settings,
    )
    return build_learner(spec)


@dataclass(frozen=True)
class Trained:
    """Parameters, the learning rate that they were trained with, and the seconds that it took."""

    params: Params
    learning_rate: float
    seconds: float


def train(estimator: Estimator, iterations: int, learning_rate: float, seed: int = 0) -> Trained:
    """Train on the same waves whatever the estimator."""
    params = estimator.objective.learner.init(generator_for(seed, "initialisation"))
    loop = OuterLoop(estimator, params, OptimizerPlan(iterations, learning_rate, GRADIENT_CLIP), seed)
    start = time.perf_counter()
    for iteration in range(iterations):
        waves = SOURCE.train.sample(TRAINING, TASKS, generator_for(seed, "training", iteration))
        loop.step(waves, iteration)
    return Trained(loop.params, learning_rate, time.perf_counter() - start)


def estimator(name: str, of: Learner, **settings: float) -> Estimator:
    """An estimator of the gradient of a learner's objective."""
    return build_estimator(name, build_objective(of), settings)


def squared_errors(of: Learner, params: Params, steps: int, split: Literal["validation", "test"] = "test") -> Tensor:
    """Mean squared error of each unseen wave [E] after inner steps."""
    return evaluate(of, params, getattr(SOURCE, split), TEST, split=split, episodes=EPISODES, steps=steps).values


def summary(values: Tensor) -> dict[str, float | None]:
    """Mean of values [E] with its 95% confidence interval; None where steps diverged."""
    figures = {"mean": values.mean().item(), "confidence_interval": 1.96 * values.std().item() / len(values) ** 0.5}
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}

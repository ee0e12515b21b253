"""Evolution strategies against backpropagation: regression of sine waves from the same tasks.

MAML with one inner step and 10 examples. Both estimators see the same waves in the same order; only the number of
adaptations that are computed with them differs. The control shuffles the ranks of a population, so that all but what
they have to do with the perturbations stays. Each learning rate is the one that validates best. Errors on unseen waves
are paired by wave.
"""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import Tensor
from waves import TASKS, Trained, estimator, learner, squared_errors, summary, train

from innerloop_learner import Learner
from innerloop_trainer.outer_loop import Estimator
from innerloop_trainer.outer_loop.estimators import es

PICTURE = Path(__file__).resolve().parent.parent.parent / "docs" / "evolution.png"
ITERATIONS = 3000
POPULATIONS = (128, 512)
LEARNING_RATES = (0.01, 0.03)
STEPS = (0, 1, 5, 10)


def measure_evolution() -> dict[str, Any]:
    """Errors after each number of inner steps, of each way to train; draws them."""
    made = learner(steps=1, rate=0.01)
    small, large = (estimator("es", made, population=population) for population in POPULATIONS)
    reference, evolved = _tuned(estimator("backpropagation", made)), _tuned(small)
    rate = evolved.learning_rate
    with patch.object(es, "centred_ranks", _shuffled):
        control = train(small, ITERATIONS, rate)
    runs = {
        "backpropagation": reference,
        "es, 128 copies": evolved,
        "es, 512 copies": train(large, ITERATIONS, rate),
        "es, 128 copies, shuffled": control,
        "untrained": train(small, 0, rate),
    }
    figures = {name: figures_of(made, run, reference) for name, run in runs.items()}
    draw(figures)
    weights = sum(value.numel() for value in evolved.params.values())
    return {"tasks": ITERATIONS * TASKS, "weights": weights, "runs": figures}


def _tuned(of: Estimator) -> Trained:
    """The run with the learning rate that gives the smallest error after five steps on validation waves."""
    runs = [train(of, ITERATIONS, rate) for rate in LEARNING_RATES]
    made = of.objective.learner
    return min(runs, key=lambda run: squared_errors(made, run.params, 5, "validation").mean())


def _shuffled(losses: Tensor) -> Tensor:
    """Ranks that have nothing to do with the losses."""
    return torch.randperm(len(losses)) / (len(losses) - 1) - 0.5


def figures_of(made: Learner, run: Trained, reference: Trained) -> dict[str, Any]:
    """Errors of a run, and how much larger they are than those of another, wave by wave."""
    own, other = ({steps: squared_errors(made, each.params, steps) for steps in STEPS} for each in (run, reference))
    return {
        "seconds": run.seconds,
        "learning_rate": run.learning_rate,
        "errors": {str(steps): summary(own[steps]) for steps in STEPS},
        "more_than_backpropagation": {str(steps): summary(own[steps] - other[steps]) for steps in STEPS},
    }


def draw(figures: dict[str, Any]) -> None:
    """Errors by inner steps of the runs that did not diverge."""
    figure, axis = plt.subplots(figsize=(5, 3))
    for name, run in figures.items():
        errors = run["errors"].values()
        if None not in [each["mean"] for each in errors]:
            means, intervals = ([each[key] for each in errors] for key in ("mean", "confidence_interval"))
            axis.errorbar(STEPS, means, intervals, label=name, capsize=2)
    axis.set(xlabel="inner steps", ylabel="mean squared error, unseen waves", yscale="log")
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=90)

"""Implicit gradients against backpropagation: memory by number of inner steps, and accuracy.

Memory is the most that a process takes, PyTorch included, which computes one meta-gradient: 8 tasks of Omniglot's size
(5 ways, 5 shots, 5 queries) on Conv4-32, each measured in a process of its own. Accuracy is that of `imaml` with 16
steps on unseen glyphs, 5-way 1-shot, on an MLP with 32 units; both learn from the same tasks, and episodes are paired.
"""

import resource
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import torch
from waves import summary

from innerloop_learner import InputSpec, LearnerSpec, Query, Support, build_learner
from innerloop_learner.objectives import Stage, build_objective
from innerloop_learner.tasks import Episodes
from innerloop_trainer.data import EpisodeShape, load_source
from innerloop_trainer.evaluation import evaluate
from innerloop_trainer.outer_loop import OptimizerPlan, OuterLoop, build_estimator
from innerloop_trainer.seeds import generator_for

ESTIMATORS = ("implicit", "backpropagation")
STEPS = (1, 4, 16)
ITERATIONS, TASKS, LEARNING_RATE = 300, 8, 0.003
RATES = (0.03, 0.1)
SHAPE, EPISODES = EpisodeShape(5, 1, 5), 600
PLAN = OptimizerPlan(ITERATIONS, LEARNING_RATE, gradient_clip=10.0)


def measure_implicit() -> dict[str, Any]:
    """Memory, and accuracies by inner learning rate."""
    return {
        "megabytes": {name: {str(steps): _peak_of_process(name, steps) for steps in STEPS} for name in ESTIMATORS},
        "tasks": ITERATIONS * TASKS,
        "rates": {str(rate): _accuracies(rate) for rate in RATES},
    }


def _accuracies(rate: float) -> dict[str, Any]:
    """Accuracies before training, and after it with each estimator."""
    source = load_source("glyphs")
    mlp = LearnerSpec("imaml", source.input, max_ways=5, backbone="mlp", backbone_settings={"widths": [32]})
    learner = build_learner(replace(mlp, settings={"steps": 16, "rate": rate, "proximal": 2.0}))
    start = learner.init(generator_for(0, "initialisation"))
    params, seconds = {"untrained": start}, {}
    for name in ESTIMATORS:
        loop = OuterLoop(build_estimator(name, build_objective(learner), {}), start, PLAN, seed=0)
        began = time.perf_counter()
        for iteration in range(ITERATIONS):
            loop.step(source.train.sample(SHAPE, TASKS, generator_for(0, "training", iteration)), iteration)
        params[name], seconds[name] = loop.params, time.perf_counter() - began
    accuracies = {
        name: evaluate(learner, found, source.test, SHAPE, split="test", episodes=EPISODES).values
        for name, found in params.items()
    }
    return {
        "accuracy": {name: summary(values) for name, values in accuracies.items()},
        "over_backpropagation": summary(accuracies["implicit"] - accuracies["backpropagation"]),
        "seconds": seconds,
    }


def _peak_of_process(name: str, steps: int) -> float:
    command = [sys.executable, __file__, name, str(steps)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600).stdout
    return float(output)


def _peak(name: str, steps: int) -> float:
    """Most megabytes that a process has, which computes one meta-gradient."""
    spec = LearnerSpec(
        "imaml",
        InputSpec((1, 28, 28)),
        max_ways=5,
        backbone_settings={"width": 32, "downsample": "stride", "norm": "task"},
        settings={"steps": steps},
    )
    conv4 = build_learner(spec)
    params = conv4.init(torch.Generator().manual_seed(0))
    made = build_estimator(name, build_objective(conv4), {})
    made.estimate(params, {}, _episodes(8), Stage())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _episodes(tasks: int) -> Episodes:
    generator = torch.Generator().manual_seed(0)
    x, query = (torch.rand(tasks, 25, 1, 28, 28, generator=generator) for _ in range(2))
    y = torch.arange(5).repeat_interleave(5).expand(tasks, 25)
    masks = [torch.ones(each.shape[:2], dtype=torch.bool) for each in (x, query)]
    support = Support(x, y, masks[0], torch.full((tasks,), 5), 5)
    return Episodes(support, Query(query, masks[1]), y)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(_peak(sys.argv[1], int(sys.argv[2])))

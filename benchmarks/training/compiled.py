"""Whether a compiled backbone pays in training: outer steps with and without, by processor time.

    python benchmarks/training/compiled.py [--device cpu|cuda] [--steps 6]

A twin of the learner whose backbone PyTorch's inductor compiles takes outer steps on the same tasks as the learner that
`innerloop train` uses, by turns. `protonet` differentiates its backbone once. `maml` differentiates gradients, which
compiled functions don't have twice; what PyTorch says of it is kept. Without --device, it is the CPU. Writes
compiled.json, of a GPU compiled-cuda.json.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine

from innerloop_learner import Episodes, LearnerSpec, build_learner
from innerloop_learner.acceleration import accelerated
from innerloop_learner.learner import Learner
from innerloop_learner.objectives import build_objective
from innerloop_server.engine.pytorch.compiling import compiled
from innerloop_trainer.data import DataSource, EpisodeShape, load_source
from innerloop_trainer.outer_loop import OptimizerPlan, OuterLoop, build_estimator, defaults_of

SHAPES = {"protonet": (EpisodeShape(60, 1, 5), 1), "maml": (EpisodeShape(5, 1, 15), 4)}
"""Episodes and tasks per outer step, those that `innerloop train` has of these methods, with fewer tasks of maml."""


class Steps:
    """Outer steps of one learner, and what they take.

    Args:
        learner: learner to train.
    """

    def __init__(self, learner: Learner, device: torch.device) -> None:
        params = {name: value.to(device) for name, value in learner.init(torch.Generator().manual_seed(0)).items()}
        estimator = build_estimator("backpropagation", build_objective(learner), {})
        self._loop = OuterLoop(estimator, params, OptimizerPlan(10**9, 1e-3, 10.0, "constant"), seed=0)
        self._taken = 0

    def take(self, episodes: Episodes) -> dict[str, float]:
        """Take a step; returns its loss, and what it took by the clock and of all processors, in seconds."""
        began, times = perf_counter(), os.times()
        loss = self._loop.step(episodes, self._taken).loss.item()
        self._taken += 1
        after = os.times()
        spent = sum(after[:4]) - sum(times[:4])  # compilers are processes of their own
        return {"loss": loss, "seconds": perf_counter() - began, "cpu_seconds": spent}


def measure(method: str, source: DataSource, device: torch.device, steps: int) -> dict[str, Any]:
    """The figures of one method."""
    shape, tasks = SHAPES[method]
    norm = {"norm": defaults_of(method).norm}
    learner = accelerated(build_learner(LearnerSpec(method, source.input, max_ways=5, backbone_settings=norm)), device)
    generator = torch.Generator(device).manual_seed(0)
    batches = [source.train.sample(shape, tasks, generator) for _ in range(steps)]
    sides = {"eager": Steps(learner, device), "compiled": Steps(compiled(learner), device)}
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    try:
        for episodes in batches:
            for name, side in sides.items():
                taken[name].append(side.take(episodes))
    except RuntimeError as error:
        return {"failed": str(error).splitlines()[0]}
    return {
        name: {
            "first_step_cpu_seconds": rows[0]["cpu_seconds"],
            "first_step_seconds": rows[0]["seconds"],
            "cpu_seconds": median(row["cpu_seconds"] for row in rows[1:]),
            "seconds": median(row["seconds"] for row in rows[1:]),
            "losses": [row["loss"] for row in rows],
        }
        for name, rows in taken.items()
    }


def main() -> None:
    """Measure both methods and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--steps", type=int, default=6)
    given = parser.parse_args()
    device = torch.device(given.device)
    source = load_source("glyphs", device)
    results = {method: measure(method, source, device, given.steps) for method in SHAPES}
    content = {"machine": describe_machine(), "threads": torch.get_num_threads(), "results": results}
    name = "compiled.json" if given.device == "cpu" else "compiled-cuda.json"
    Path(__file__).with_name(name).write_text(json.dumps(content, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()

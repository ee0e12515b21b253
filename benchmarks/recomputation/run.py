"""Memory and time of an outer step of second-order MAML by inner steps: their activations kept, or recomputed.

    python benchmarks/recomputation/run.py

Conv4-64, 2 tasks of 5 ways, 5 shots and 5 queries a class, images of 28x28 pixels, float32. Each configuration is a
process of its own with one thread, which takes two outer steps. Memory is by how much the most that the process had
resident exceeds what it had before the first outer step; time is computing time of an outer step, the less of two.
`tensors_mib` is the memory of one outer step where the C library gives every block back at once: what tensors take,
without freed blocks that lie between them unused. The gradients of both must be equal. Writes results.json.
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from innerloop_learner import Episodes, InputSpec, LearnerSpec, Query, Support, build_learner
from innerloop_learner.acceleration import accelerated
from innerloop_learner.gradient_learner import GradientLearner, recomputing
from innerloop_learner.host_memory import keep_freed_memory, resident_bytes
from innerloop_learner.objectives import Stage, build_objective
from innerloop_trainer.outer_loop.estimators.backpropagation import backpropagate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine, results_file

STEPS, TASKS, WAYS, SHOTS, QUERIES = (1, 5, 10, 20), 2, 5, 5, 5
REPEATS, MEBIBYTE = 2, 2**20


def main() -> None:
    """Measure every configuration in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs=3, metavar=("STEPS", "RECOMPUTE", "FREED"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        steps, recompute, freed = map(int, given.part)
        print(json.dumps(measure(steps, recompute=bool(recompute), freed=bool(freed))))
        return
    results: dict[str, dict[str, Any]] = {}
    for steps in STEPS:
        kept, again = ({**in_process(steps, way, 0), **tensors(in_process(steps, way, 1))} for way in (0, 1))
        if kept["gradients"] != again["gradients"]:
            raise RuntimeError(f"gradients of {steps} steps differ")
        results[str(steps)] = {"kept": kept, "recomputed": again, "time": again["seconds"] / kept["seconds"]}
        print(steps, json.dumps(results[str(steps)]), flush=True)
    content = {"machine": describe_machine(), "results": results}
    results_file(__file__, "cpu").write_text(json.dumps(content, indent=2) + "\n")


def tensors(measured: dict[str, Any]) -> dict[str, float]:
    """The memory of a process that frees at once, under a name of its own."""
    return {"tensors_mib": measured["memory_mib"]}


def in_process(steps: int, recompute: int, freed: int) -> dict[str, Any]:
    """What `measure` finds in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if freed:
        environment["MALLOC_MMAP_THRESHOLD_"] = str(2**17)  # glibc's own first threshold, which then stays as it is
    command = [sys.executable, str(Path(__file__).resolve()), "--part", str(steps), str(recompute), str(freed)]
    found = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    measured: dict[str, Any] = json.loads(found.stdout)
    return measured


def measure(steps: int, *, recompute: bool, freed: bool) -> dict[str, Any]:
    """Take outer steps and read memory and time."""
    torch.set_num_threads(1)
    if not freed:
        keep_freed_memory()  # as `innerloop train` does
    spec = LearnerSpec("maml", InputSpec((1, 28, 28)), settings={"steps": steps})
    learner = accelerated(build_learner(spec), "cpu")
    if not isinstance(learner, GradientLearner):
        raise TypeError("MAML takes inner steps")
    objective = build_objective(recomputing(learner) if recompute else learner)
    generator = torch.Generator().manual_seed(0)
    params, episodes = learner.init(generator), make_episodes(generator)
    before, seconds = resident_bytes() or 0, []
    for _ in range(1 if freed else REPEATS):
        start = time.process_time()
        estimate = backpropagate(objective, params, episodes, Stage())
        seconds.append(time.process_time() - start)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    gradients = torch.cat([value.flatten() for _, value in sorted(estimate.gradients.items())])
    return {
        "memory_mib": (most - before) / MEBIBYTE,
        "seconds": min(seconds),
        "gradients": hashlib.sha256(gradients.numpy().tobytes()).hexdigest(),
    }


def make_episodes(generator: torch.Generator) -> Episodes:
    """Tasks of random images."""
    x, y = _examples(SHOTS, generator)
    real = torch.ones(y.shape, dtype=torch.bool)
    query, targets = _examples(QUERIES, generator)
    support = Support(x, y, real, torch.full((TASKS,), WAYS), WAYS)
    return Episodes(support, Query(query, torch.ones(targets.shape, dtype=torch.bool)), targets)


def _examples(each: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(TASKS, WAYS * each, 1, 28, 28, generator=generator)
    return x, torch.arange(WAYS).repeat_interleave(each).expand(TASKS, -1)


if __name__ == "__main__":
    main()

"""What training tasks are made of: used once, with every example a support example in turn, or mixed with others.

    python benchmarks/training_tasks/run.py OMNIGLOT

All sides take the same number of outer steps of one task of 60 ways, one support example and four queries of each, on
strided Conv4-32. `in turn` is `--set in_turn=true`, `mixed` is `--mix-tasks 0.5`. Accuracy is over 600 tasks of unseen
characters (random split, inductive), the same ones for all; gains over `once` are by seed, with the half width of their
95% interval, and seconds are processor time of one thread. Rates are the usual ones of each method, and nothing was
tuned. Writes results.json.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from innerloop_learner.host_memory import keep_freed_memory
from innerloop_trainer.config import TrainingConfig
from innerloop_trainer.data import DataSource, EpisodeShape, load_source
from innerloop_trainer.evaluation import evaluate
from innerloop_trainer.outer_loop import OuterLoop
from innerloop_trainer.plan import make_plan
from innerloop_trainer.seeds import generator_for

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from intervals import half_width
from machine import describe_machine

RESULTS = Path(__file__).with_name("results.json")
SEEDS = range(5)
SIDES: dict[str, dict[str, Any]] = {"once": {}, "in turn": {"settings": {"in_turn": True}}, "mixed": {"mix_tasks": 0.5}}
METHODS = {"protonet": tuple(SIDES), "r2d2": ("once", "in turn")}
"""Methods, and what each is trained with."""

SHAPES = {"5-way 1-shot": EpisodeShape(5, 1, 15), "20-way 1-shot": EpisodeShape(20, 1, 5)}
EPISODES = 600
TRAINING = TrainingConfig(
    "protonet",
    "omniglot",
    train_ways=60,
    queries=4,
    meta_batch=1,
    iterations=600,
    backbone="conv4",
    backbone_settings={"width": 32, "downsample": "stride"},
)


def main() -> None:
    """Train and measure both sides with every seed, and write results.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("omniglot", help="folder with images_background and images_evaluation")
    source = load_source(f"omniglot:{parser.parse_args().omniglot}")
    torch.set_num_threads(1)
    keep_freed_memory()
    results = {}
    for method, sides in METHODS.items():
        runs = {side: [_run(source, method, seed, SIDES[side]) for seed in SEEDS] for side in sides}
        results[method] = {
            side: _means(own) if side == "once" else {**_means(own), "gain": _gains(runs["once"], own)}
            for side, own in runs.items()
        }
        print(method, json.dumps(results[method]), flush=True)
    content = {"machine": describe_machine(), "episodes": EPISODES, "seeds": len(SEEDS), "results": results}
    RESULTS.write_text(json.dumps(content, indent=2) + "\n")


def _run(source: DataSource, method: str, seed: int, options: dict[str, Any]) -> dict[str, float]:
    """Accuracies in percent of one training, and the seconds that it took."""
    config = replace(TRAINING, method=method, seed=seed, **options)
    plan = make_plan(config, source, torch.device("cpu"))
    loop = OuterLoop(plan.estimator, plan.init(generator_for(seed, "start")), plan.optimizer, seed)
    start = time.process_time()
    for step in range(plan.iterations):
        episodes = plan.source.train.sample(plan.episodes, plan.meta_batch, generator_for(seed, "episodes", step))
        loop.step(episodes, step)
    seconds = time.process_time() - start
    accuracies = {
        name: 100 * evaluate(plan.learner, loop.params, source.test, shape, split="test", episodes=EPISODES).mean
        for name, shape in SHAPES.items()
    }
    return {**accuracies, "seconds": seconds}


def _means(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: mean(run[name] for run in runs) for name in runs[0]}


def _gains(once: list[dict[str, float]], runs: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """The mean gain over seeds in points, and the half width of its interval, for each size of tasks."""
    gains = {name: [run[name] - plain[name] for plain, run in zip(once, runs, strict=True)] for name in SHAPES}
    return {name: {"mean": mean(own), "half_width": half_width(own)} for name, own in gains.items()}


if __name__ == "__main__":
    main()

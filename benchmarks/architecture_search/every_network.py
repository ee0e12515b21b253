"""The small space `edges`, trained exhaustively: every architecture, with several seeds.

`protonet` on Omniglot with the split `random`, trained on 20 ways for 60 outer steps and measured on 20-way 1-shot
tasks of validation and of test characters. A run is what a trial of `innerloop search` is. Finished runs are kept in
runs/architecture_search/ and not made again.
"""

import json
import time
from itertools import product
from pathlib import Path
from typing import Any

import torch

from innerloop_learner.host_memory import keep_freed_memory
from innerloop_trainer.config import TrainingConfig
from innerloop_trainer.data import DataSource, EpisodeShape
from innerloop_trainer.evaluation import evaluate
from innerloop_trainer.outer_loop import OuterLoop
from innerloop_trainer.plan import TrainingPlan, make_plan
from innerloop_trainer.search import spaces
from innerloop_trainer.search.arithmetic import multiply_adds
from innerloop_trainer.search.spaces import Architecture
from innerloop_trainer.seeds import generator_for

RUNS = Path(__file__).resolve().parent.parent.parent / "runs" / "architecture_search"
SPACE = spaces["edges"]
SEEDS = (0, 1)
TRAINING: dict[str, Any] = {"ways": 20, "train_ways": 20, "queries": 2, "iterations": 60, "learning_rate": 0.005}
VALIDATION_EPISODES, TEST_EPISODES = 50, 100
MEASURED = EpisodeShape(20, 1, 2)


def architectures() -> list[Architecture]:
    """All architectures of the space."""
    return list(product(*(range(len(choice.options)) for choice in SPACE.choices)))


def trained(plan: TrainingPlan, seed: int) -> OuterLoop:
    """The outer loop of a plan after all of its steps."""
    loop = OuterLoop(plan.estimator, plan.init(generator_for(seed, "initialisation")), plan.optimizer, seed)
    for iteration in range(plan.iterations):
        generator = generator_for(seed, "training", iteration)
        loop.step(plan.source.train.sample(plan.episodes, plan.meta_batch, generator), iteration)
    return loop


def make_table(source: DataSource, name: str) -> list[dict[str, Any]]:
    """One entry for each architecture: its accuracies by seed."""
    torch.set_num_threads(1)
    keep_freed_memory()
    file = RUNS / "edges.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    runs = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    known = {(tuple(run["architecture"]), run["seed"]): run for run in runs}
    with file.open("a") as log:
        for seed, architecture in product(SEEDS, architectures()):
            if (architecture, seed) not in known:
                run = known[architecture, seed] = _run(source, name, architecture, seed)
                log.write(json.dumps(run) + "\n")
                log.flush()
    return [_entry([known[architecture, seed] for seed in SEEDS]) for architecture in architectures()]


def _run(source: DataSource, name: str, architecture: Architecture, seed: int) -> dict[str, Any]:
    settings = SPACE.settings(architecture)
    config = TrainingConfig(
        "protonet", name, seed=seed, backbone=SPACE.backbone, backbone_settings=settings, **TRAINING
    )
    began = time.process_time()
    plan = make_plan(config, source, "cpu")
    params = trained(plan, seed).params
    seconds = time.process_time() - began
    validation, test = (
        evaluate(plan.learner, params, sampler, MEASURED, split=split, episodes=episodes, seed=seed)
        for sampler, split, episodes in (
            (source.validation, "validation", VALIDATION_EPISODES),
            (source.test, "test", TEST_EPISODES),
        )
    )
    return {
        "architecture": architecture,
        "seed": seed,
        "validation": round(validation.mean, 5),
        "test": round(test.mean, 5),
        "multiply_adds": multiply_adds(plan.learner.backbone, source.input.shape),
        "seconds": round(seconds, 2),
    }


def _entry(runs: list[dict[str, Any]]) -> dict[str, Any]:
    first = runs[0]
    return {
        "architecture": first["architecture"],
        "multiply_adds": first["multiply_adds"],
        "validation": [run["validation"] for run in runs],
        "test": [run["test"] for run in runs],
        "seconds": [run["seconds"] for run in runs],
    }

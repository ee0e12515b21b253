"""`darts`, run for real in the space `edges`: what it picks, looked up in the table of `table.py`.

With the auxiliary skip connection, and as a control without it, which is plain DARTS, for as long a training of all
operations at once and from the same seeds.
"""

import statistics
import time
from dataclasses import replace
from typing import Any

import torch
from replay import regret_of
from table import SPACE, TRAINING, trained

from innerloop_trainer.config import TrainingConfig
from innerloop_trainer.data import DataSource
from innerloop_trainer.plan import make_plan
from innerloop_trainer.search.held_out import BesideHeldOut
from innerloop_trainer.search.searchers import Wanted, build_searcher
from innerloop_trainer.search.searchers.mixture import LOGITS, OPERATIONS, most_probable

SEEDS, ITERATIONS = (0, 1, 2), 150
SIDES = {"auxiliary skip": 1.0, "plain": 0.0}


def measure_mixtures(source: DataSource, name: str, table: dict[str, Any]) -> dict[str, Any]:
    """The pick of each side and seed, and its regret."""
    torch.set_num_threads(1)
    networks = {tuple(entry["architecture"]): entry for entry in table["networks"]}
    held_out = replace(source, train=BesideHeldOut(source.train, source.validation))
    results: dict[str, Any] = {"iterations": ITERATIONS}
    for side, auxiliary in SIDES.items():
        runs = [_run(held_out, name, seed, auxiliary, networks) for seed in SEEDS]
        results[side] = {"regret": statistics.mean(run["regret"] for run in runs), "runs": runs}
    return results


def _run(source: DataSource, name: str, seed: int, auxiliary: float, networks: dict[Any, Any]) -> dict[str, Any]:
    settings = {"auxiliary_skip": auxiliary, "supernet_iterations": ITERATIONS}
    searcher = build_searcher("darts", Wanted(SPACE), seed, settings)
    cell = SPACE.settings((0,) * len(SPACE.choices))
    config = searcher.supernet(TrainingConfig("protonet", name, seed=seed, backbone_settings=cell, **TRAINING))
    assert config is not None
    began = time.process_time()
    logits = trained(make_plan(config, source, "cpu"), seed).params[LOGITS]
    pick = most_probable(logits, 1)[0]
    return {
        "seed": seed,
        "pick": SPACE.described(pick),
        "regret": regret_of(networks, pick),
        "weight_of_skips": logits.softmax(-1)[:, OPERATIONS.index("skip")].mean().item(),
        "seconds": time.process_time() - began,
    }

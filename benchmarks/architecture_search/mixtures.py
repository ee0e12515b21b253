"""`darts`, run for real in the space `edges`: what it picks, looked up in the table of `every_network.py`.

With the auxiliary skip connection, and as a control without it, which is plain DARTS, for as long a training of all
operations at once and from the same seeds. Finished runs are kept in runs/architecture_search/.
"""

import json
import statistics
import time
from dataclasses import replace
from typing import Any

import torch
from every_network import RUNS, SPACE, TRAINING, trained
from replay import regret_of

from innerloop_trainer.config import TrainingConfig
from innerloop_trainer.data import DataSource
from innerloop_trainer.plan import make_plan
from innerloop_trainer.search.held_out import BesideHeldOut
from innerloop_trainer.search.searchers import Wanted, build_searcher
from innerloop_trainer.search.searchers.mixture import LOGITS, OPERATIONS, most_probable

SEEDS, ITERATIONS = (0, 1, 2, 3, 4), 300
SIDES = {"auxiliary skip": 1.0, "plain": 0.0}


def measure_mixtures(source: DataSource, name: str, table: dict[str, Any]) -> dict[str, Any]:
    """The pick of each side and seed, and its regret."""
    torch.set_num_threads(1)
    networks = {tuple(entry["architecture"]): entry for entry in table["networks"]}
    held_out = replace(source, train=BesideHeldOut(source.train, source.validation))
    results: dict[str, Any] = {"iterations": ITERATIONS}
    for side, auxiliary in SIDES.items():
        runs = [_kept(held_out, name, seed, auxiliary) for seed in SEEDS]
        for run in runs:
            run["regret"] = regret_of(networks, SPACE.architecture(run["pick"]))
        results[side] = {"regret": statistics.mean(run["regret"] for run in runs), "runs": runs}
    return results


def _kept(source: DataSource, name: str, seed: int, auxiliary: float) -> dict[str, Any]:
    """What a run gave, made now or before."""
    file = RUNS / f"mixtures-{auxiliary:g}-{seed}.json"
    if not file.is_file():
        file.write_text(json.dumps(_run(source, name, seed, auxiliary)))
    run: dict[str, Any] = json.loads(file.read_text())
    return run


def _run(source: DataSource, name: str, seed: int, auxiliary: float) -> dict[str, Any]:
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
        "weight_of_skips": logits.softmax(-1)[:, OPERATIONS.index("skip")].mean().item(),
        "seconds": time.process_time() - began,
    }
